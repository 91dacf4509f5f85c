//! Damage in the internal logs, below what their last trim needs.

use super::*;

/// A store in whose internal logs a clean-up has made the oldest segments void, which are still
/// there. In the first of them a topic and a group are made, in the second they are removed.
fn with_void_segments() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let run = |number: u64| {
        let broker = open(&disk, FROM);
        if number == 2 {
            broker.admin().delete_topic("removed").unwrap();
            broker.admin().delete_group("removed").unwrap();
            return;
        }
        let name = if number == 1 { "removed".to_owned() } else { format!("kept-{number}") };
        broker.ensure_topic("plain", plain_config()).unwrap();
        broker.ensure_topic(&name, TopicConfig::new(1)).unwrap();
        let plain = broker.topic("plain").unwrap().partition(0).unwrap();
        plain.append(&Record::new().value("v")).unwrap();
        let mut consumer = broker.consumer(&name).assign([("plain", 0)]).open().unwrap();
        consumer.commit_offsets(&Offsets::from([(TopicPartition::from(("plain", 0)), 1)])).unwrap();
    };
    run(1);
    run(2);
    disk.inject(Fault::always(Operation::Remove, ErrorKind::Other).on("/__"));
    (3..12).for_each(run);
    disk.heal();
    disk
}

/// Symptom: a topic and a group that were deleted were in the copy of a directory that opened
/// without them. Cause: what is whole of an internal log was replayed, also below the last trim,
/// where the record that removed an entry was damaged and the one that made it was not. Rule: where
/// damage lies below the last trim, an internal log is read from there, as at an opening.
// RED: src/salvage/state.rs
//   - read = Records::read(&damaged, &identity, needed)?;
#[test]
fn row_e01_what_was_removed_below_the_last_trim_does_not_come_back_in_a_copy() {
    let whole = with_void_segments();
    for is_removed in [false, true] {
        let disk = whole.kill9();
        for log in ["__meta", "__offsets"] {
            let second = segments(&disk, &format!("/from/{log}/")).remove(1);
            if is_removed {
                disk.remove_file(&second).unwrap();
                continue;
            }
            // All batches: the first changes of a deletion are in force without the last one.
            let used = disk.read(&second).unwrap();
            for position in (SegmentHeader::SIZE + 20..used.len()).step_by(60) {
                disk.corrupt(&second, position as u64, 1).unwrap();
            }
        }
        let context = format!("removed: {is_removed}");
        let (report, copy) = salvaged(&disk);
        assert!(report.is_whole(), "{context}: {report:#?}");
        assert!(report.topics.iter().all(|topic| &*topic.name != "removed"), "{context}");
        let copy = open(&copy, TO);
        let source = open(&disk, FROM);
        let groups = |broker: &Broker| {
            let groups = broker.admin().groups().unwrap();
            groups.into_iter().map(|group| group.name).collect::<Vec<_>>()
        };
        assert_eq!(groups(&copy), groups(&source), "{context}");
        assert_eq!(groups(&copy).len(), 9, "{context}");
        assert_eq!(contents(&copy), contents(&source), "{context}");
    }
}
