//! How much of the disk a closed broker's files take.

use super::*;

const MIB: u64 = 1 << 20;

fn lengths(dir: &Path) -> Vec<u64> {
    files_below(dir).iter().map(|file| fs::metadata(file).unwrap().len()).collect()
}

/// Symptom: after a close, the last file of a partition was up to 18 MiB longer than its records, and
/// beside it lay files of 8 MiB for what comes next: a copy that knows no holes took all of that.
/// Cause: a mapped file was never shortened. Rule: nobody touches a map beyond what is published, so
/// a file that takes no more appends can be shortened there, also under readers of any process.
// RED: src/broker/engine.rs
//   - users().for_each(|partition| space::give_back(partition.log()));
//   + users().for_each(|partition| drop(partition.is_closed()));
// RED: src/log/tasks.rs
//   - if let Some(kept) = shortened(end, length) {
//   + if let Some(kept) = shortened(end, length).filter(|kept| *kept > length) {
#[test]
fn row_d16_a_clean_close_leaves_no_file_a_mebibyte_longer_than_its_data() {
    let dir = temp_dir();
    let clock = manual_clock();
    let open = || quiet(dir.path()).clock(clock.clone()).open().unwrap();
    let broker = open();
    let files = dir.path().join("t/0");
    let hour = Duration::from_secs(3_600);
    let config = TopicConfig::new(1).segment_bytes(64 * MIB).segment_age(hour);
    broker.ensure_topic("t", config.retention(Duration::MAX)).unwrap();
    let payload = |number: u64| vec![u8::try_from(number).unwrap(); 100_000];
    let send = |broker: &Broker, numbers: std::ops::Range<u64>| {
        for number in numbers {
            broker.producer().send(Record::to("t").value(&payload(number))).unwrap();
            broker.tick().unwrap();
        }
    };
    // The first segment is sealed by its age, the second is the last.
    send(&broker, 0..50);
    clock.advance(2 * hour);
    send(&broker, 50..100);
    let before = lengths(&files);
    assert!(before.len() > 1, "{before:?}");
    assert!(before.iter().sum::<u64>() > 12 * MIB, "{before:?}: no space was made ahead");
    let reader_of = |broker: &Broker| broker.reader().subscribe(["t"]).open().unwrap();
    let looking = Broker::builder().data_dir(dir.path()).read_only(true).open().unwrap();
    let held: Vec<_> =
        [&broker, &looking].into_iter().map(|it| drain(&mut reader_of(it))).collect();
    broker.close().unwrap();
    let after = lengths(&files);
    assert!(after.iter().sum::<u64>() < 100 * 100_000 + MIB, "{after:?}, before {before:?}");
    // Readers of both brokers still have all of it.
    let check = |messages: &[logpond::Message], numbers: std::ops::Range<u64>| {
        assert!(messages.iter().map(logpond::Message::offset).eq(numbers));
        for message in messages {
            assert_eq!(message.value(), Some(&*payload(message.offset())));
        }
    };
    for messages in &held {
        check(messages, 0..100);
    }
    check(&drain(&mut reader_of(&looking)), 0..100);
    // The next run continues in the same file.
    let broker = open();
    assert!(broker.recovery().is_clean());
    send(&broker, 100..200);
    assert_eq!(lengths(&files).len(), after.len());
    check(&drain(&mut reader_of(&broker)), 0..200);
    for messages in &held {
        check(messages, 0..100);
    }
    broker.close().unwrap();
}
