//! Named producers: each record once, and one holder of an id.

use super::*;

#[test]
fn statement_22_sequences_survive_a_restart_and_a_retry_is_stored_once() {
    for closes in [true, false] {
        let dir = temp_dir();
        let broker = open_quiet(dir.path());
        broker.ensure_topic("t", small_topic(2)).unwrap();
        let named = |broker: &Broker| broker.producer_builder().id("lines").build().unwrap();
        let record = |value: &'static str| Record::to("t").partition(0).value(value);
        let producer = named(&broker);
        assert_eq!(producer.last_sequence(&tp("t", 0)), None);
        for (seq, value) in [(10, "a"), (11, "b"), (40, "c")] {
            let sent = producer.send_sequenced(seq, record(value)).unwrap();
            assert!(matches!(sent, SendOutcome::Appended(_)), "{sent:?}");
        }
        for seq in [0, 10, 11, 39, 40] {
            let sent = producer.send_sequenced(seq, record("again")).unwrap();
            assert!(matches!(sent, SendOutcome::Duplicate { last: 40 }), "{seq}: {sent:?}");
        }
        // Each partition counts for itself; a plain send takes no number.
        assert_eq!(producer.last_sequence(&tp("t", 1)), None);
        producer.send(Record::to("t").partition(1).value("x")).unwrap();
        assert_eq!(producer.last_sequence(&tp("t", 1)), None);
        producer.send(record("d")).unwrap();
        producer.send_batch([record("e"), record("f")]).unwrap();
        producer.enqueue(record("g")).unwrap().wait().unwrap();
        assert_eq!(producer.last_sequence(&tp("t", 0)), Some(40));
        // Through many rolls the table goes along.
        let padding = "p".repeat(500);
        for _ in 0..100 {
            broker.producer().send(Record::to("t").partition(0).value(&padding)).unwrap();
        }
        drop(producer);
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        let broker = open_quiet(dir.path());
        let producer = named(&broker);
        assert_eq!(producer.last_sequence(&tp("t", 0)), Some(40));
        assert_eq!(producer.last_sequence(&tp("t", 1)), None);
        let again = producer.send_sequenced(40, record("again")).unwrap();
        assert!(matches!(again, SendOutcome::Duplicate { last: 40 }), "{again:?}");
        let sent = producer.send_sequenced(41, record("h")).unwrap();
        assert!(matches!(sent, SendOutcome::Appended(_)), "{sent:?}");
        let partition = broker.topic("t").unwrap().partition(0).unwrap();
        let own: Vec<String> =
            read_all(&partition).iter().map(text).filter(|it| *it != padding).collect();
        assert_eq!(own, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    }
}

#[test]
fn statement_22_a_newer_holder_of_an_id_fences_the_older_also_across_a_restart() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", small_topic(1)).unwrap();
    let named = || broker.producer_builder().id("p").build().unwrap();
    let old = named();
    let other = broker.producer_builder().id("other").build().unwrap();
    old.send_sequenced(1, Record::to("t").key("k").value("a")).unwrap();
    let new = named();
    let record = || Record::to("t").key("k").value("x");
    for refused in [
        old.send(record()).map(drop),
        old.enqueue(record()).map(drop),
        old.send_batch([record()]).map(drop),
        old.send_sequenced(1, record()).map(drop),
        old.send_sequenced(100, record()).map(drop),
    ] {
        let Err(Error::Fenced { id, epoch, current }) = &refused else { panic!("{refused:?}") };
        assert_eq!((id.as_str(), *current), ("p", epoch + 1));
        let error = refused.unwrap_err();
        assert!(error.is_fatal() && error.is_definite() && !error.is_retriable());
    }
    new.send(record()).unwrap();
    other.send(record()).unwrap();
    assert_eq!(new.last_sequence(&tp("t", 0)), Some(1), "fenced sends took no number");
    drop((old, new, other));
    broker.close().unwrap();
    let broker = open_quiet(dir.path());
    let newest = broker.producer_builder().id("p").build().unwrap();
    let older = newest.clone();
    let newer_still = broker.producer_builder().id("p").build().unwrap();
    assert!(matches!(older.send(record()), Err(Error::Fenced { .. })));
    newer_still.send(record()).unwrap();
}

#[test]
fn duplicate_is_answered_once_the_original_has_reached_the_level() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).background(false).open().unwrap();
    let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    let quick = broker.producer_builder().id("p").durability(Durability::Os).build().unwrap();
    let record = || Record::to("t").key("k").value("a");
    quick.send_sequenced(1, record()).unwrap();
    let producer = broker.producer_builder().id("p").build().unwrap();
    assert_eq!(partition.durable_end_offset(), 0);
    let outcome = producer.send_sequenced(1, record()).unwrap();
    assert!(matches!(outcome, SendOutcome::Duplicate { last: 1 }), "{outcome:?}");
    assert_eq!(partition.durable_end_offset(), 1, "answered before the original was durable");
}

#[test]
fn a_sequence_without_an_id_or_without_a_fixed_partition_is_refused() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(2)).unwrap();
    let plain = broker.producer();
    let keyed = || Record::to("t").key("k").value("a");
    assert_eq!(refused_setting(plain.send_sequenced(1, keyed())), "id");
    assert_eq!(plain.last_sequence(&tp("t", 0)), None);
    let named = broker.producer_builder().id("p").build().unwrap();
    assert_eq!(refused_setting(named.send_sequenced(1, Record::to("t").value("a"))), "record");
    assert_eq!(named.last_sequence(&tp("none", 0)), None);
    assert_eq!(named.last_sequence(&tp("t", 2)), None);
    let max = named.send_sequenced(u64::MAX, keyed()).unwrap();
    assert!(matches!(max, SendOutcome::Appended(_)), "{max:?}");
    named.send(keyed()).unwrap();
    let long = "x".repeat(256);
    for (id, reason) in [("", NameError::Empty), (long.as_str(), NameError::TooLong { limit: 255 })]
    {
        let refused = broker.producer_builder().id(id).build();
        let Err(Error::InvalidName { name, reason: given }) = refused else {
            panic!("{id:?}: {refused:?}")
        };
        assert_eq!((name.as_str(), given), (id, reason));
    }
}

/// Symptom: of `send_sequenced(1)`, `send`, `send_sequenced(2)` the last was answered `Duplicate`,
/// and its record was never stored. Cause: a plain send took the next number, which was the
/// source's. Rule: only `send_sequenced` takes numbers.
// RED: src/log/producers.rs
//   - (Sequence::Absent, _) => return Admission::Append { base_sequence: None },
//   + (Sequence::Absent, _) => known.map_or(1, |state| state.last_sequence + 1),
#[test]
fn row_j18_a_plain_send_takes_no_number_of_the_source() {
    let dir = temp_dir();
    for run in 0..2 {
        let broker = open_quiet(dir.path());
        broker.ensure_topic("t", small_topic(1)).unwrap();
        let producer = broker.producer_builder().id("rows").build().unwrap();
        let record = |value: &'static str| Record::to("t").partition(0).value(value);
        let first = run * 10 + 1;
        for (seq, value) in [(first, "row"), (first + 1, "next row")] {
            let sent = producer.send_sequenced(seq, record(value)).unwrap();
            assert!(matches!(sent, SendOutcome::Appended(_)), "{seq}: {sent:?}");
            producer.send(record("heartbeat")).unwrap();
            drop(producer.enqueue(record("heartbeat")).unwrap());
            producer.send_batch([record("heartbeat"), record("heartbeat")]).unwrap();
            assert_eq!(producer.last_sequence(&tp("t", 0)), Some(seq));
        }
        // Not closed: the numbers are read from the batches.
    }
}

#[test]
fn holders_of_one_id_on_many_threads_append_side_by_side() {
    let dir = temp_dir();
    let broker = Broker::builder().data_dir(dir.path()).durability(Durability::Os).open().unwrap();
    let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
    let producer = broker.producer_builder().id("p").build().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let producer = producer.clone();
            scope.spawn(move || {
                for _ in 0..200 {
                    producer.send(Record::to("t").value("x")).unwrap();
                }
            });
        }
    });
    assert_eq!(topic.partition(0).unwrap().log_end_offset(), 800);
    assert_eq!(producer.last_sequence(&tp("t", 0)), None);
}

/// Symptom: ten rows were sent with their numbers, the topic grew from one partition to four, and
/// the same ten were sent again: 17 were stored. Cause: their keys led to other partitions, which
/// knew none of the numbers. Rule: a topic does not grow while it remembers numbers that were sent
/// by key.
// RED: src/broker/topics.rs
//   - check(&change, &topic)?;
#[test]
fn row_j22_a_topic_does_not_grow_while_numbers_depend_on_its_partitions() {
    let dir = temp_dir();
    let clock = manual_clock();
    let open = || quiet(dir.path()).clock(clock.clone()).open().unwrap();
    let mut broker = open();
    broker.ensure_topic("t", small_topic(1)).unwrap();
    broker.ensure_topic("other", small_topic(1)).unwrap();
    let named = |broker: &Broker, id: &str| broker.producer_builder().id(id).build().unwrap();
    let rows = |producer: &Producer| -> usize {
        let send = |seq: &u64| {
            let key = seq.to_string();
            let record = Record::to("t").key(&key).value("row");
            matches!(producer.send_sequenced(*seq, record).unwrap(), SendOutcome::Appended(_))
        };
        (1..=10).filter(send).count()
    };
    let grown = |broker: &Broker, total| broker.admin().add_partitions("t", total);
    let refused = |broker: &Broker, total| match grown(broker, total) {
        Err(Error::Config(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    // Neither plain sends nor numbers of a named partition depend on how many there are.
    let plain = named(&broker, "plain");
    plain.send(Record::to("t").key("k").value("x")).unwrap();
    plain.send_sequenced(1, Record::to("t").key("k").partition(0).value("x")).unwrap();
    let stays = named(&broker, "stays");
    assert_eq!(rows(&named(&broker, "rows")), 10);
    stays.send_sequenced(1, Record::to("other").key("k").value("x")).unwrap();
    drop((plain, stays));
    // The refusal comes from what is stored, too.
    for closes in [false, true] {
        let reason = refused(&broker, 4);
        assert!(reason.contains("\"rows\""), "{reason}");
        assert!(!reason.contains("plain") && !reason.contains("stays"), "{reason}");
        assert_eq!(rows(&named(&broker, "rows")), 0);
        if closes {
            broker.close().unwrap();
        } else {
            drop(broker);
        }
        broker = open();
    }

    // Forgotten on purpose: what is sent again is stored again, and the holders are fenced.
    let held = named(&broker, "rows");
    broker.admin().forget_producer("rows").unwrap();
    let late = held.send_sequenced(11, Record::to("t").key("k").value("late"));
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
    let unknown = broker.admin().forget_producer("rows");
    assert!(matches!(unknown, Err(Error::Config(_))), "{unknown:?}");
    grown(&broker, 4).unwrap();
    assert_eq!(rows(&named(&broker, "rows")), 10);
    assert_eq!(rows(&named(&broker, "rows")), 0);
    refused(&broker, 5);

    // Forgotten because it was idle for long, also by a holder that continues later.
    let held = named(&broker, "rows");
    clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
    grown(&broker, 5).unwrap();
    assert_eq!(rows(&held), 10);
    refused(&broker, 6);
}

/// Retries beside growths: whatever comes between, a number is stored once.
#[test]
fn numbers_sent_beside_a_growth_are_stored_once() {
    for _ in 0..20 {
        let broker = in_memory();
        let topic = broker.ensure_topic("t", small_topic(1)).unwrap();
        let producer = broker.producer_builder().id("p").build().unwrap();
        let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
        let growing = {
            let broker = broker.clone();
            thread::spawn(move || {
                (2..10).for_each(|total| drop(broker.admin().add_partitions("t", total)));
            })
        };
        for _ in 0..2 {
            for (key, seq) in keys.iter().zip(1..) {
                producer.send_sequenced(seq, Record::to("t").key(key).value("v")).unwrap();
            }
        }
        growing.join().unwrap();
        let stored: u64 = (0..topic.partitions())
            .map(|number| topic.partition(number).unwrap().log_end_offset())
            .sum();
        assert!(stored <= 20, "{stored}");
    }
}

/// A batch, an enqueued record and a typed one are the same to the log as a lone one.
// RED: src/log/producers.rs
//   - (Sequence::Rising { first, .. }, Some(state)) if first <= state.last_sequence => {
//   + (Sequence::Rising { last, .. }, Some(state)) if last <= state.last_sequence => {
#[test]
fn numbers_of_a_source_are_stored_once_by_every_form_of_send() {
    let broker = in_memory();
    broker.ensure_topic("t", small_topic(2)).unwrap();
    let producer = broker.producer_builder().id("lines").build().unwrap();
    let line = |seq: u64| (seq, Record::to("t").partition(0).value("line"));
    let sent = producer.send_batch_sequenced([line(1), line(5), line(9)]).unwrap();
    let offsets: Vec<_> = sent.iter().map(|sent| appended(sent).offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
    let last = producer.last_sequenced(("t", 0)).unwrap();
    assert_eq!((last.sequence, last.offset), (9, 2));
    // Some are stored, some are new, some are repeated or late within the call.
    let numbers = [5, 9, 10, 10, 7, 30];
    let sent = producer.send_batch_sequenced(numbers.map(line)).unwrap();
    let duplicate = |last| SendOutcome::Duplicate { last };
    assert_eq!(sent[..2], [duplicate(9), duplicate(9)]);
    assert_eq!((appended(&sent[2]).offset, appended(&sent[5]).offset), (3, 4));
    assert_eq!(sent[3..5], [duplicate(10), duplicate(10)]);
    // All are.
    let sent = producer.send_batch_sequenced([line(1), line(30)]).unwrap();
    assert_eq!(sent, [duplicate(30), duplicate(30)]);
    assert!(producer.send_batch_sequenced([]).unwrap().is_empty());

    let (seq, record) = line(30);
    let delivery = producer.enqueue_sequenced(seq, record).unwrap();
    assert_eq!(
        (delivery.outcome(), delivery.partition(), delivery.offset()),
        (duplicate(30), 0, 4)
    );
    assert_eq!(delivery.wait().unwrap(), duplicate(30));
    let (seq, record) = line(31);
    let delivery = producer.enqueue_sequenced(seq, record).unwrap();
    assert_eq!(appended(&delivery.outcome()).offset, 5);
    assert_eq!(appended(&delivery.wait().unwrap()).offset, 5);

    let typed = producer.typed::<u32>("t");
    let record = || Record::new().partition(1).header("by", "type");
    assert_eq!(appended(&typed.send_sequenced(7, &1, record()).unwrap()).offset, 0);
    assert_eq!(typed.send_sequenced(7, &1, record()).unwrap(), duplicate(7));
    assert_eq!(appended(&typed.enqueue_sequenced(8, &2, record()).unwrap().outcome()).offset, 1);

    // One batch for each partition, which counts for itself.
    let at = |seq, partition| (seq, Record::to("t").partition(partition).value("v"));
    let sent = producer.send_batch_sequenced([at(8, 1), at(40, 0), at(9, 1), at(41, 0)]).unwrap();
    assert_eq!(sent[0], duplicate(8));
    let offsets: Vec<_> = sent[1..].iter().map(|sent| appended(sent).offset).collect();
    assert_eq!(offsets, [6, 2, 7]);
}

fn appended(outcome: &SendOutcome) -> RecordMetadata {
    match outcome {
        SendOutcome::Appended(metadata) => *metadata,
        SendOutcome::Duplicate { .. } => panic!("{outcome:?}"),
    }
}

#[test]
fn a_batch_of_numbers_needs_an_id_and_targets_and_its_numbers_survive() {
    let dir = temp_dir();
    let broker = open_quiet(dir.path());
    broker.ensure_topic("t", small_topic(3)).unwrap();
    let keyed = |seq: u64| (seq, Record::to("t").key("k").value("v"));
    assert_eq!(refused_setting(broker.producer().send_batch_sequenced([keyed(1)])), "id");
    assert_eq!(refused_setting(broker.producer().enqueue_sequenced(1, keyed(1).1)), "id");
    let producer = broker.producer_builder().id("lines").build().unwrap();
    let nowhere = || Record::to("t").value("v");
    assert_eq!(
        refused_setting(producer.send_batch_sequenced([keyed(1), (2, nowhere())])),
        "record"
    );
    assert_eq!(refused_setting(producer.enqueue_sequenced(2, nowhere())), "record");
    let sent = producer.send_batch_sequenced([keyed(3), keyed(900)]).unwrap();
    let partition = appended(&sent[0]).partition;
    // By key: the topic must not grow while the numbers are remembered.
    assert!(matches!(broker.admin().add_partitions("t", 4), Err(Error::Config(_))));
    drop((producer, broker));
    let broker = open_quiet(dir.path());
    let producer = broker.producer_builder().id("lines").build().unwrap();
    let last = producer.last_sequenced(("t", partition)).unwrap();
    assert_eq!((last.sequence, last.offset), (900, 1));
    let sent = producer.send_batch_sequenced([keyed(900), keyed(901)]).unwrap();
    assert_eq!(sent[0], SendOutcome::Duplicate { last: 900 });
    assert_eq!(appended(&sent[1]).offset, 2);
    // An older holder of the id is refused, also where all are duplicates.
    let newer = broker.producer_builder().id("lines").build().unwrap();
    let refused = producer.send_batch_sequenced([keyed(1)]);
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    assert!(newer.send_batch_sequenced([keyed(1)]).is_ok());
}

/// Threads that share a producer may meet in one partition: each number is stored once, and the
/// numbers of the log rise.
#[test]
fn batches_of_numbers_from_several_threads_are_stored_once() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let producer = broker.producer_builder().id("lines").build().unwrap();
    let texts: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for chunk in (0..400_u64).collect::<Vec<_>>().chunks(7) {
                    let line = |seq: &u64| {
                        let text = &texts[usize::try_from(*seq).unwrap()];
                        (*seq, Record::to("t").partition(0).value(text))
                    };
                    producer.send_batch_sequenced(chunk.iter().map(line)).unwrap();
                }
            });
        }
    });
    let partition = broker.topic("t").unwrap().partition(0).unwrap();
    let read: Vec<u64> = read_all(&partition).iter().map(number).collect();
    assert_eq!(read, (0..400).collect::<Vec<_>>());
}
