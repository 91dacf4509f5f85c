//! Batches, opening batches, footers and segment headers.

use super::{SALT, keys, mode};
use crate::format::{
    BatchEncoder, BatchView, Footer, Opening, Placement, RecordView, SegmentHeader, SegmentKey,
    TimeRange, fixup, reseal,
};

/// One batch, in a segment of today and in one of an earlier build. With an even first byte, its
/// checksum is made right.
///
/// # Panics
///
/// When a batch that passes its check does not read back as what it says.
pub fn batch(data: &[u8]) {
    let (mode, bytes) = mode(data);
    for key in &keys(SALT) {
        batch_under(key, mode & 1 == 0, bytes.to_vec());
    }
}

fn batch_under(key: &SegmentKey, is_fixed: bool, mut bytes: Vec<u8>) {
    if is_fixed {
        fixup::batch(&mut bytes, key);
    }
    let Ok(Some(view)) = BatchView::check(&bytes, key) else { return };
    if view.header().is_opening() {
        if let Ok(opening) = Opening::decode(&view) {
            opening_reads_back(&opening, key);
        }
        return;
    }
    records_are_sound(&view);
    let once = encoded_again(&view, key);
    let Ok(Some(again)) = BatchView::check(&once, key) else {
        panic!("what was written is refused");
    };
    records_are_equal(&view, &again);
    assert!(encoded_again(&again, key) == once, "one meaning, two encodings");
    moves_to_another_segment(&view);
}

fn opening_reads_back(opening: &Opening, key: &SegmentKey) {
    let Ok(bytes) = opening.encode(key, 0) else { panic!("what was read is too large to write") };
    let again = BatchView::check(&bytes, key).ok().flatten().map(|view| Opening::decode(&view));
    assert!(again == Some(Ok(opening.clone())), "{opening:?}: {again:?}");
}

fn records_are_sound(view: &BatchView<'_>) {
    let header = view.header();
    let (mut count, mut lowest) = (0, header.base_offset);
    let mut records = view.records();
    while let Some(record) = records.next() {
        assert!((lowest..header.next_offset()).contains(&record.offset), "{record:?}");
        assert!(record.timestamp <= header.max_timestamp, "{record:?}");
        assert!(record.headers.clone().count() == record.headers.len(), "{record:?}");
        lowest = record.offset.saturating_add(1);
        count += 1;
        let paused = records.pause();
        let resumed = paused.resume(view.bytes()).next();
        assert!(is_same(resumed.as_ref(), records.clone().next().as_ref()), "after a pause");
    }
    assert!(count == header.record_count, "{count} of {} records", header.record_count);
}

fn is_same(left: Option<&RecordView<'_>>, right: Option<&RecordView<'_>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => {
            (left.offset, left.timestamp, left.key, left.value)
                == (right.offset, right.timestamp, right.key, right.value)
                && left.headers.clone().eq(right.headers.clone())
        }
        (None, None) => true,
        _ => false,
    }
}

fn records_are_equal(left: &BatchView<'_>, right: &BatchView<'_>) {
    let (mut left, mut right) = (left.records(), right.records());
    loop {
        let (one, other) = (left.next(), right.next());
        assert!(is_same(one.as_ref(), other.as_ref()), "{one:?} became {other:?}");
        if one.is_none() {
            return;
        }
    }
}

/// The batch as this crate writes it, with its own records.
fn encoded_again(view: &BatchView<'_>, key: &SegmentKey) -> Vec<u8> {
    let header = view.header();
    let mut encoder = BatchEncoder::new();
    for record in view.records() {
        let delta = record.offset.checked_sub(header.base_offset);
        let Some(Ok(delta)) = delta.map(u32::try_from) else {
            panic!("{record:?} lies outside of its batch");
        };
        let RecordView { timestamp, key, value, headers, .. } = record;
        let pushed = encoder.push_at(delta, timestamp, key, value, headers);
        assert!(pushed.is_ok(), "{pushed:?}");
    }
    encoder.set_last_offset_delta(header.last_offset_delta);
    encoder.set_base_timestamp_if_empty(header.base_timestamp);
    encoder.set_delete_horizon(header.delete_horizon);
    let placement = Placement {
        base_offset: header.base_offset,
        leader_epoch: header.leader_epoch,
        durable_end: header.durable_mark().unwrap_or(0),
        key,
        producer: header.producer,
    };
    encoder.finish().seal(&placement).to_vec()
}

fn moves_to_another_segment(view: &BatchView<'_>) {
    let mut bytes = view.bytes().to_vec();
    for key in &keys(!SALT) {
        let resealed = reseal(&mut bytes, 0, key);
        assert!(resealed.is_ok(), "{resealed:?}");
        let moved = BatchView::check(&bytes, key).ok().flatten();
        assert!(moved.is_some_and(|moved| moved.bytes().len() == view.bytes().len()));
    }
}

/// A footer, or, with bit 1 of the first byte, a segment header. With an even first byte, its
/// checksum is made right.
///
/// # Panics
///
/// When what is accepted is not written as it was read, or an index leads out of its segment.
pub fn footer(data: &[u8]) {
    let (mode, bytes) = mode(data);
    let mut bytes = bytes.to_vec();
    if mode & 2 != 0 {
        if mode & 1 == 0 {
            fixup::header(&mut bytes);
        }
        if let Ok(header) = SegmentHeader::decode(&bytes) {
            assert!(SegmentHeader::decode(&header.encode()) == Ok(header), "{header:?}");
            assert!(header.ranks().start() <= header.ranks().end(), "{header:?}");
        }
        return;
    }
    if mode & 1 == 0 {
        fixup::footer(&mut bytes, SALT);
    }
    let Ok(footer) = Footer::decode(&bytes, SALT) else { return };
    let again = footer.encode(SALT).map(|bytes| Footer::decode(&bytes, SALT));
    // Where an earlier version's age decides is not stored again.
    let stored = |times: TimeRange| TimeRange { since: times.aged_from, ..times };
    let expected = Footer { times: footer.times.map(stored), ..footer.clone() };
    assert!(again == Ok(Ok(expected)), "{footer:?}: {again:?}");
    let positions =
        SegmentHeader::END_POSITION..footer.data_end.max(SegmentHeader::END_POSITION + 1);
    let times = footer.index.rows().iter().map(|row| row.max_timestamp);
    for wanted in times.chain([0, footer.base_offset, footer.next_offset, u64::MAX]) {
        assert!(positions.contains(&footer.index.floor(wanted)), "{footer:?}");
        let by_time = footer.index.first_at_or_after_time(wanted);
        assert!(by_time.is_none_or(|position| positions.contains(&position)), "{footer:?}");
    }
}
