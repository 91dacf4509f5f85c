//! What a copy knows of named producers, and what a sender meets there.

use super::*;

fn record(key: &str) -> Record<'_> {
    Record::to("plain").partition(1).key(key).value("v")
}

/// A store in which the first producer was forgotten after it sent, and the second was not.
fn with_a_forgotten_producer() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let broker = open(&disk, FROM);
    broker.ensure_topic("plain", plain_config()).unwrap();
    for (name, last) in [("kept", 5), ("forgotten", 7)] {
        let producer = broker.producer_builder().id(name).build().unwrap();
        for number in 1..=last {
            producer.send_sequenced(number, record(name)).unwrap();
        }
    }
    broker.admin().forget_producer("forgotten").unwrap();
    broker.close().unwrap();
    disk
}

/// Symptom: a producer that was forgotten, or had expired, was in the copy again, under a name that
/// nobody had given it, as if its own were lost. Cause: any id without a name was taken for one
/// whose name is lost, since the copy did not know from which id on new ones begin. Rule: a catalog
/// that is whole says which ids have names; all others below the next new one have none, and are
/// given to nobody.
#[test]
fn a_forgotten_producer_stays_forgotten_and_its_id_goes_to_nobody() {
    let (report, copy) = salvaged(&with_a_forgotten_producer());
    assert!(report.is_whole(), "{report:#?}");
    assert_eq!(report.producers, ["kept".into()]);
    let broker = open(&copy, TO);
    let plain = TopicPartition::from(("plain", 1));
    for (name, last) in [("kept", Some(5)), ("forgotten", None), ("new", None)] {
        let producer = broker.producer_builder().id(name).build().unwrap();
        assert_eq!(producer.last_sequence(&plain), last, "{name}");
        let sent = producer.send_sequenced(5, record(name));
        assert_eq!(offset_of(sent).is_none(), name == "kept", "{name}");
    }
}

/// What a sender has to expect without the catalog: under its own name it begins anew, and a retry
/// is stored again; under the name that the report says its numbers continue.
#[test]
fn a_sender_whose_name_is_lost_continues_under_the_name_that_the_report_says() {
    let store = store(true);
    remove(&store.disk, "__meta");
    let (report, copy) = salvaged(&store.disk);
    let [salvaged] = &*report.producers else { panic!("{report:#?}") };
    let broker = open(&copy, TO);
    let plain = TopicPartition::from(("plain", 1));
    let own = broker.producer_builder().id(NAMED).build().unwrap();
    assert_eq!(own.last_sequence(&plain), None);
    assert!(offset_of(own.send_sequenced(3, record("retry"))).is_some());
    let named = broker.producer_builder().id(&**salvaged).build().unwrap();
    assert_eq!(named.last_sequence(&plain), Some(3));
    assert!(offset_of(named.send_sequenced(3, record("retry"))).is_none());
    assert!(offset_of(named.send_sequenced(4, record("new"))).is_some());
}
