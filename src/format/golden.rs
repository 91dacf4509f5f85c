//! The format as documented: the tables of `docs/format.md` against the constants, its worked
//! example against the encoder, and exact bytes of every structure.

use std::fmt::Write as _;

use super::batch::header;
use super::*;

const DOCUMENT: &str = include_str!("../docs/format.md");

type Layout = [(usize, usize, &'static str)];

/// The `(at, size, field)` rows of the tables in a section: from its heading to the next one.
fn documented(heading: &str) -> Vec<(usize, usize, String)> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no section {heading:?}");
    let section = lines.take_while(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, at, size, field, ..] = cells.as_slice() else {
            return None;
        };
        let field = field.strip_prefix('`')?.strip_suffix('`')?;
        Some((at.parse().ok()?, size.parse().ok()?, field.to_owned()))
    };
    section.filter_map(row).collect()
}

fn assert_documented(heading: &str, layout: &Layout) {
    let code: Vec<_> =
        layout.iter().map(|(at, size, field)| (*at, *size, (*field).into())).collect();
    assert_eq!(documented(heading), code, "{heading}");
    let mut end = 0;
    for (at, size, field) in layout {
        assert_eq!(*at, end, "{heading}: a gap or an overlap before {field}");
        end = at + size;
    }
}

#[test]
fn the_documents_tables_are_the_constants() {
    assert_documented("## Segment header", segment::LAYOUT);
    assert_documented("### Opening batch", opening::LAYOUT);
    assert_documented("### Producer table row", producers::LAYOUT);
    assert_documented("### Summary", footer::SUMMARY_LAYOUT);
    assert_documented("### Trailer", footer::TRAILER_LAYOUT);
    // The batch's section has two tables: the fixed fields, then the extension by its bits.
    let both = documented("## Batch");
    let (fixed, extension) = both.split_at(header::LAYOUT.len());
    let own = |layout: &Layout| -> Vec<(usize, usize, String)> {
        layout.iter().map(|(at, size, field)| (*at, *size, (*field).into())).collect()
    };
    assert_eq!(fixed, own(header::LAYOUT));
    assert_eq!(extension, own(header::EXTENSION));
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The bytes of the `hex` block: two hexadecimal digits each, up to a comment after two spaces.
fn worked_example() -> Vec<u8> {
    let block = DOCUMENT.split("```hex\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().flat_map(|line| bytes_of(line.split("  ").next().unwrap())).collect()
}

/// A segment of today.
fn key(salt: u64) -> SegmentKey {
    SegmentKey::new(salt, ONE_PASS_CHECKSUMS)
}

/// A segment that an earlier build made.
fn earlier_key(salt: u64) -> SegmentKey {
    SegmentKey::new(salt, 0)
}

fn example_batch(key: &SegmentKey) -> Vec<u8> {
    let mut encoder = BatchEncoder::new();
    encoder.push(1_700_000_000_000, None, Some(b"hi"), HeaderFields::default()).unwrap();
    let placement =
        Placement { base_offset: 7, leader_epoch: 2, durable_end: 5, key, producer: None };
    encoder.finish().seal(&placement).to_vec()
}

#[test]
fn the_documents_worked_example_is_what_the_encoder_writes() {
    let salt = 0x1122_3344_5566_7788;
    assert_eq!(hex_of(&worked_example()), hex_of(&example_batch(&key(salt))));
    // Under the rule for segments of earlier builds, only the checksum is another.
    let mut earlier = worked_example();
    earlier[4..8].copy_from_slice(&[0x0a, 0x13, 0xac, 0x19]);
    assert_eq!(hex_of(&earlier), hex_of(&example_batch(&earlier_key(salt))));
}

/// A reader written from the document alone: a bitwise CRC, and nothing of this crate.
#[test]
fn the_documents_worked_example_verifies_by_the_documents_rules() {
    let crc = |parts: &[&[u8]]| {
        let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
        !parts.concat().iter().fold(u32::MAX, byte)
    };
    let batch = worked_example();
    let salt = bytes_of("88 77 66 55 44 33 22 11");
    let size = u32::from_le_bytes(batch[..4].try_into().unwrap());
    let in_one_pass = crc(&[&salt, &batch[8..]]) ^ size;
    assert_eq!(batch[4..8], in_one_pass.to_le_bytes());
    let in_parts = crc(&[&batch[44..], &batch[8..44], &batch[..4], &salt]);
    assert_eq!([0x0a, 0x13, 0xac, 0x19], in_parts.to_le_bytes());
    assert_eq!(crc(&[b"123456789"]), 0xcbf4_3926);
}

fn producer() -> ProducerState {
    ProducerState { id: 1, epoch: 2, last_sequence: 3, last_offset: 4, last_timestamp: 5 }
}

#[test]
fn the_segment_headers_bytes_are_fixed() {
    let header = |rewrite| SegmentHeader {
        topic_id: TopicId(*b"0123456789abcdef"),
        partition: 3,
        number: 4,
        salt: 5,
        generation: 6,
        rewrite: Some(rewrite),
        incompatible: 0,
        compatible: 0,
    };
    let truncating = concat!(
        "894c504f4e440d0a010000000300000000000000000000000000000000000000",
        "3031323334353637383961626364656604000000000000000500000000000000",
        "0600000003000000070000000000000007000000000000000000000000000000",
        "00000000000000000000000000000000000000000000000000000000642df69d",
    );
    assert_eq!(hex_of(&header(Rewrite::Truncates(7)).encode()), truncating);
    let replacement = Replacement {
        base_offset: 7,
        next_offset: 9,
        first_number: 1,
        last_number: 3,
        is_clean: true,
    };
    let replacing = concat!(
        "894c504f4e440d0a010000000300000000000000000000000000000000000000",
        "3031323334353637383961626364656604000000000000000500000000000000",
        "0600000005000000070000000000000009000000000000000100000000000000",
        "0300000000000000000000000000000000000000000000000000000039c2e631",
    );
    assert_eq!(hex_of(&header(Rewrite::Replaces(replacement)).encode()), replacing);
}

#[test]
fn a_batch_with_everything_has_fixed_bytes() {
    let mut encoder = BatchEncoder::new();
    let headers: [(&str, &[u8]); 1] = [("h", b"v")];
    encoder.push(1000, Some(b"k"), Some(b""), headers.into_iter()).unwrap();
    encoder.push_at(300, 1001, None, None, HeaderFields::default()).unwrap();
    encoder.set_delete_horizon(Some(0x0a0b));
    let placement = Placement {
        base_offset: 256,
        leader_epoch: 1,
        durable_end: 256,
        key: &earlier_key(1),
        producer: Some(ProducerStamp { id: 2, epoch: 3, base_sequence: 4 }),
    };
    let expected = concat!(
        "600000002a0a7a41000000000b0000000001000000000000e803000000000000",
        "010000002c01000002000000e903000000000000020000000000000003000000",
        "04000000000000000b0a00000000000007016b0001016801761802ac02000000",
    );
    assert_eq!(hex_of(encoder.finish().seal(&placement)), expected);
    let placement = Placement { key: &key(1), ..placement };
    let expected = expected.replacen("2a0a7a41", "d0e1a84d", 1);
    assert_eq!(hex_of(encoder.finish().seal(&placement)), expected);
}

#[test]
fn the_opening_batchs_bytes_are_fixed() {
    let opening = Opening {
        base_offset: 16,
        leader_epoch: 1,
        incarnation: 2,
        durable_mark: 15,
        producers: vec![producer()],
    };
    let expected = concat!(
        "60000000a7c06118010000000010000010000000000000000900000000000000",
        "01000000000000000000000002000000000000000f0000000000000001000000",
        "0000000002000000030000000000000004000000000000000500000000000000",
    );
    assert_eq!(hex_of(&opening.encode(&earlier_key(1), 9).unwrap()), expected);
    let expected = expected.replacen("a7c06118", "83c854c0", 1);
    assert_eq!(hex_of(&opening.encode(&key(1), 9).unwrap()), expected);
}

#[test]
fn the_footers_bytes_are_fixed() {
    let mut index = SparseIndex::new(16);
    index.note_batch(17, 256, 40, 7);
    let footer = Footer {
        base_offset: 16,
        next_offset: 18,
        data_end: 296,
        times: Some(TimeRange { first: 6, max: 7, aged_from: 8, since: 8 }),
        leader_epoch: 1,
        incarnation: 2,
        index,
        producers: vec![producer()],
        next_horizon: None,
    };
    let expected = concat!(
        "0100340000001000000000000000120000000000000006000000000000000700",
        "0000000000000200000000000000280100000100000001000000020008000000",
        "0100000000010000030008000000070000000000000004002400000001000000",
        "0000000002000000030000000000000004000000000000000500000000000000",
        "06000800000008000000000000009e0000009d5f6daf89504f4e44454e44",
    );
    assert_eq!(hex_of(&footer.encode(1).unwrap()), expected);
    // What a compaction adds to it.
    let footer = Footer { next_horizon: Some(9), ..footer };
    let fields = expected.len() / 2 - Footer::TRAILER_SIZE;
    let added = hex_of(&footer.encode(1).unwrap()[fields..fields + 14]);
    assert_eq!(added, "0700080000000900000000000000");
}

/// What the version before wrote: its age is a moment of one run, which the greatest timestamp
/// overrules unless that lies in the future.
#[test]
fn the_footer_with_the_time_of_a_run_is_read() {
    let bytes = concat!(
        "0100340000001000000000000000120000000000000006000000000000000700",
        "0000000000000200000000000000280100000100000001000000020008000000",
        "0100000000010000030008000000070000000000000004002400000001000000",
        "0000000002000000030000000000000004000000000000000500000000000000",
        "05000800000008000000000000009e000000c7acebc289504f4e44454e44",
    );
    let bytes: Vec<u8> = (0..bytes.len() / 2)
        .map(|at| u8::from_str_radix(&bytes[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let times = Footer::decode(&bytes, 1).unwrap().times;
    assert_eq!(times, Some(TimeRange { first: 6, max: 7, aged_from: 7, since: 7 }));
}
