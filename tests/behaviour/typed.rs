//! Goal: values go in and come out; bytes that are no value are data, and never hold up a
//! consumer; codecs of the caller's run under no lock.
//!
//! Method: small topics in memory, at level `Os` and without threads, and codecs that misbehave.
//!
//! Not covered: what bincode and JSON make of every type; hostile bytes are tried in `src/codec`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::common::*;
use logpond::{
    Bincode, Broker, Codec, CodecError, CommitMode, Error, NoVersion, Producer, Record, StartAt,
    TopicConfig, TypedConsumer, TypedMessage, Version, Versioned,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PriceChanged {
    article: String,
    cents: u64,
    tags: Vec<String>,
}

fn change(cents: u64) -> PriceChanged {
    PriceChanged { article: "sku-1".into(), cents, tags: vec!["new".into(), String::new()] }
}

fn prices(partitions: u32) -> Broker {
    let broker = in_memory();
    broker.ensure_topic("prices", TopicConfig::new(partitions)).unwrap();
    broker
}

fn feed(broker: &Broker, group: &str) -> TypedConsumer<PriceChanged> {
    broker.consumer(group).subscribe(["prices"]).open_typed().unwrap()
}

/// The value of a message that must have one.
fn value<T: Clone>(message: &TypedMessage<T>) -> T {
    message.value.clone().expect("a value that decodes").expect("no tombstone")
}

#[test]
fn values_come_out_as_they_went_in() {
    let broker = prices(1);
    let producer = broker.producer().typed::<PriceChanged>("prices");
    let sent = producer.send(&change(1)).unwrap();
    let keyed = producer.send_keyed("sku-1", &change(2)).unwrap();
    let enqueued = producer.enqueue(&change(3)).unwrap();
    let metadata = producer.enqueue_keyed(b"sku-1".as_slice(), &change(4)).unwrap().metadata();
    assert_eq!((sent.offset, keyed.offset, metadata.offset), (0, 1, 3));
    assert_eq!(enqueued.wait().unwrap().offset, 2);

    let mut feed = feed(&broker, "cache");
    let messages = feed.poll(Duration::ZERO).unwrap();
    let values: Vec<_> = messages.iter().map(value).collect();
    assert_eq!(values, [change(1), change(2), change(3), change(4)]);
    let keys: Vec<_> = messages.iter().map(|message| message.raw.key()).collect();
    assert_eq!(keys, [None, Some(&b"sku-1"[..]), None, Some(b"sku-1")]);
    assert!(feed.poll(Duration::ZERO).unwrap().is_empty());
}

#[test]
fn a_value_encoded_by_hand_is_the_same_value() {
    let broker = prices(3);
    let producer = broker.producer().typed::<PriceChanged>("prices");
    let bytes = producer.encode(&change(5)).unwrap();
    let record = Record::to(producer.topic()).value(&bytes).header("by", "hand").partition(2);
    producer.producer().send(record).unwrap();
    let message = feed(&broker, "g").recv().unwrap();
    assert_eq!(value(&message), change(5));
    assert_eq!(message.raw.partition(), 2);
    assert_eq!(message.raw.headers().get("by"), Some(&b"hand"[..]));
}

#[test]
fn a_value_is_sent_with_headers_a_time_and_a_partition() {
    let broker = prices(3);
    let producer = broker.producer().typed::<PriceChanged>("prices");
    let record = || Record::new().key("k").header("trace", "7").timestamp(some_time()).partition(2);
    producer.send_with(&change(1), record()).unwrap();
    producer.enqueue_with(&change(2), record().topic("prices")).unwrap().wait().unwrap();
    for refused in [record().topic("other"), record().value("v")] {
        let sent = producer.send_with(&change(3), refused.clone());
        assert!(matches!(sent, Err(Error::Config(_))), "{sent:?}");
        assert!(matches!(producer.enqueue_with(&change(3), refused), Err(Error::Config(_))));
    }
    let messages = feed(&broker, "g").poll(Duration::ZERO).unwrap();
    assert_eq!(messages.iter().map(value).collect::<Vec<_>>(), [change(1), change(2)]);
    for message in messages {
        assert_eq!((message.raw.partition(), message.raw.key()), (2, Some(&b"k"[..])));
        assert_eq!(message.raw.headers().get("trace"), Some(&b"7"[..]));
        assert_eq!(message.raw.timestamp(), some_time());
    }
}

/// Bincode writes no names: what depends on them is not decoded.
#[derive(Serialize, Deserialize)]
struct Sparse {
    cents: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Changed { cents: u64 },
}

#[derive(Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    price: PriceChanged,
}

/// Values of such types were sent and acknowledged, and no consumer ever decoded them. Rule: a debug
/// build decodes what it has encoded, before it appends.
// RED: src/typed/encode.rs
//   - if cfg!(debug_assertions)
//   + if false
#[test]
#[cfg(debug_assertions)]
fn row_j25_a_value_that_cannot_be_decoded_is_refused_by_a_debug_build() {
    fn refused<T: Serialize + serde::de::DeserializeOwned + 'static>(value: &T) {
        let broker = prices(1);
        let producer = broker.producer().typed::<T>("prices");
        let sent = producer.send(value);
        let Err(Error::Codec(error)) = &sent else { panic!("{sent:?}") };
        assert_eq!(error.codec(), "bincode");
        assert!(matches!(producer.enqueue_keyed("k", value), Err(Error::Codec(_))));
        assert!(matches!(producer.encode(value), Err(Error::Codec(_))));
        let partition = broker.topic("prices").unwrap().partition(0).unwrap();
        assert_eq!(partition.log_end_offset(), 0);
    }
    refused(&Sparse { cents: 7, note: None });
    refused(&Tagged::Changed { cents: 7 });
    refused(&Flat { price: change(7) });
    // The same types with all their fields written.
    let broker = prices(1);
    let sparse = broker.producer().typed::<Sparse>("prices");
    sparse.send(&Sparse { cents: 7, note: Some("n".into()) }).unwrap();
}

/// The first release's type, the second's and the third's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct First(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Second(u64, String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Third {
    cents: u64,
    name: String,
    is_new: bool,
}

impl Version for First {
    const NUMBER: u8 = 1;
    type Before = NoVersion;
    fn upgrade(before: NoVersion) -> Self {
        match before {}
    }
}

impl Version for Second {
    const NUMBER: u8 = 2;
    type Before = First;
    fn upgrade(before: First) -> Self {
        Self(before.0, "none".into())
    }
}

impl Version for Third {
    const NUMBER: u8 = 7;
    type Before = Second;
    fn upgrade(before: Second) -> Self {
        Self { cents: before.0, name: before.1, is_new: false }
    }
}

#[test]
fn a_type_that_evolves_reads_what_its_versions_wrote() {
    let codec = Versioned::<Bincode>::default;
    let broker = prices(1);
    let producer = broker.producer();
    producer.typed_with("prices", codec()).send(&First(1)).unwrap();
    producer.typed_with("prices", codec()).send(&Second(2, "two".into())).unwrap();
    let third = Third { cents: 3, name: "three".into(), is_new: true };
    producer.typed_with("prices", codec()).send(&third).unwrap();
    producer.send(Record::to("prices").value(b"\x03\x01")).unwrap();
    producer.send(Record::to("prices").value("")).unwrap();
    producer.send(Record::to("prices").value(b"\x01\x01 and more")).unwrap();

    let reader = || broker.reader().subscribe(["prices"]);
    let mut latest = reader().open_typed_with::<Third, _>(codec()).unwrap();
    let messages = latest.poll(Duration::ZERO).unwrap();
    let upgraded = |cents, name: &str| Third { cents, name: name.into(), is_new: false };
    let values: Vec<_> = messages.iter().take(3).map(value).collect();
    assert_eq!(values, [upgraded(1, "none"), upgraded(2, "two"), third]);
    for bad in &messages[3..] {
        bad.value.as_ref().unwrap_err();
    }
    // An earlier release gets an error that says why, and continues.
    let mut earlier = reader().open_typed_with::<Second, _>(codec()).unwrap();
    let messages = earlier.poll(Duration::ZERO).unwrap();
    assert_eq!(value(&messages[1]), Second(2, "two".into()));
    let error = messages[2].value.as_ref().unwrap_err().to_string();
    assert!(error.contains('7') && error.contains('2'), "{error}");
}

#[test]
fn a_typed_consumer_seeks_and_says_its_lag_and_gaps() {
    let broker = prices(1);
    let typed = broker.producer().typed::<PriceChanged>("prices");
    for cents in 0..4 {
        typed.send(&change(cents)).unwrap();
    }
    let mut feed = feed(&broker, "g");
    assert_eq!(feed.lag().unwrap(), [(tp("prices", 0), 4)].into());
    feed.seek(("prices", 0), StartAt::Offset(2)).unwrap();
    assert_eq!(value(&feed.recv().unwrap()), change(2));
    feed.commit_offsets(&[(tp("prices", 0), 1)].into()).unwrap();
    assert_eq!(feed.inner().committed(("prices", 0)).unwrap(), Some(1));
    feed.seek(("prices", 0), StartAt::Earliest).unwrap();
    broker.admin().delete_records(("prices", 0), 3).unwrap();
    assert_eq!(value(&feed.recv().unwrap()), change(3));
    let gaps = feed.take_gaps();
    assert_eq!((gaps.len(), gaps[0].missed.clone()), (1, 0..3));
    assert!(feed.take_gaps().is_empty());
}

#[test]
fn a_tombstone_is_no_value_and_an_empty_value_is_one() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    let producer = broker.producer().typed::<()>("t");
    producer.tombstone("k").unwrap();
    producer.send_keyed("k", &()).unwrap();
    let mut consumer = broker.reader().subscribe(["t"]).open_typed::<()>().unwrap();
    let messages = consumer.poll(Duration::ZERO).unwrap();
    assert!(matches!(messages[0].value, Ok(None)), "{messages:?}");
    assert_eq!(messages[0].raw.key(), Some(&b"k"[..]));
    assert!(matches!(messages[1].value, Ok(Some(()))), "{messages:?}");
}

/// Bytes that are no value: nothing, too little, too much, hostile lengths.
const BAD: [&[u8]; 5] = [
    b"",
    b"\x05sku",
    b"\xfd\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x00\x01\x00left over",
    b"\x00\x01\xfd\xff\xff\xff\xff\xff\xff\xff\x7f",
];

#[test]
fn bytes_that_are_no_value_are_data_and_the_consumer_continues() {
    let broker = prices(1);
    let typed = broker.producer().typed::<PriceChanged>("prices");
    for (number, bytes) in (0..).zip(BAD) {
        broker.producer().send(Record::to("prices").value(bytes)).unwrap();
        typed.send(&change(number)).unwrap();
    }
    // By all ways to read.
    let check = |messages: &[TypedMessage<PriceChanged>]| {
        assert_eq!(messages.len(), 2 * BAD.len());
        for (number, pair) in (0..).zip(messages.chunks(2)) {
            let error = pair[0].value.as_ref().unwrap_err();
            assert_eq!(error.codec(), "bincode");
            assert_eq!(pair[0].raw.value(), Some(BAD[usize::try_from(number).unwrap()]));
            assert_eq!(value(&pair[1]), change(number));
        }
    };
    check(&feed(&broker, "poll").poll(Duration::ZERO).unwrap());
    let mut by_recv = feed(&broker, "recv");
    check(&std::array::from_fn::<_, 10, _>(|_| by_recv.recv().unwrap()));
    let mut by_try = feed(&broker, "try");
    check(&std::array::from_fn::<_, 10, _>(|_| by_try.try_recv().unwrap().unwrap()));
    assert!(by_try.try_recv().unwrap().is_none());
    assert!(by_try.recv_timeout(Duration::ZERO).unwrap().is_none());
    let mut by_iter = feed(&broker, "iter");
    check(&by_iter.iter().take(10).map(Result::unwrap).collect::<Vec<_>>());
}

#[test]
fn a_bad_record_is_committed_like_any_other() {
    let broker = prices(1);
    broker.producer().send(Record::to("prices").value("no value")).unwrap();
    let mut consumer = feed(&broker, "g");
    let bad = consumer.recv().unwrap();
    assert!(bad.value.is_err());
    consumer.commit().unwrap();
    assert_eq!(consumer.inner().committed(&tp("prices", 0)).unwrap(), Some(1));
    consumer.close().unwrap();

    broker.producer().typed("prices").send(&change(7)).unwrap();
    let mut again = feed(&broker, "g");
    let message = again.recv().unwrap();
    assert_eq!(value(&message), change(7));
    again.commit_message(&message).unwrap();
    again.commit_message(&message.raw).unwrap();
    assert_eq!(again.inner().committed(&tp("prices", 0)).unwrap(), Some(2));
}

#[test]
fn bad_records_are_passed_in_auto_mode_too() {
    let broker = prices(1);
    for bytes in BAD {
        broker.producer().send(Record::to("prices").value(bytes)).unwrap();
    }
    let every = Duration::from_nanos(1);
    let builder = broker.consumer("g").subscribe(["prices"]).commit(CommitMode::Auto { every });
    let mut consumer = builder.open_typed::<PriceChanged>().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), BAD.len());
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(consumer.inner().committed(&tp("prices", 0)).unwrap(), Some(5));
}

#[test]
fn the_limit_of_a_record_counts_what_is_encoded() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1).max_record_bytes(100)).unwrap();
    let producer = broker.producer().typed::<Vec<u8>>("t");
    // One byte of the 100 is the length.
    producer.send(&vec![7; 99]).unwrap();
    let refused = producer.send(&vec![7; 100]);
    assert!(matches!(refused, Err(Error::RecordTooLarge { size: 101, limit: 100 })), "{refused:?}");
    let refused = producer.send_keyed("k", &vec![7; 99]);
    assert!(matches!(refused, Err(Error::RecordTooLarge { size: 101, .. })), "{refused:?}");
    let mut consumer = broker.reader().subscribe(["t"]).open_typed::<Vec<u8>>().unwrap();
    assert_eq!(value(&consumer.recv().unwrap()), [7; 99]);
    assert!(consumer.try_recv().unwrap().is_none());
}

/// Refuses odd numbers, and knows no number above 100.
struct Even;

impl Codec<u32> for Even {
    fn name(&self) -> &'static str {
        "even"
    }

    fn encode(&self, value: &u32, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        // What stands in the buffer when encoding fails must never be sent.
        buffer.extend_from_slice(&value.to_le_bytes());
        if value.is_multiple_of(2) { Ok(()) } else { Err(CodecError::new("even", value)) }
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, CodecError> {
        let bytes = bytes.try_into().map_err(|error| CodecError::new("even", error))?;
        let value = u32::from_le_bytes(bytes);
        assert!(value <= 100, "what is {value}?");
        Ok(value)
    }
}

#[test]
fn what_cannot_be_encoded_is_not_sent() {
    let broker = prices(1);
    let producer = broker.producer().typed_with("prices", Even);
    producer.send(&2).unwrap();
    let refused = producer.send(&3).unwrap_err();
    assert!(refused.is_definite(), "{refused:?}");
    assert!(matches!(&refused, Error::Codec(error) if error.codec() == "even"), "{refused:?}");
    assert!(matches!(producer.enqueue_keyed("k", &5), Err(Error::Codec(_))));
    assert!(matches!(producer.encode(&7), Err(Error::Codec(_))));
    producer.send(&4).unwrap();
    let consumer = broker.reader().subscribe(["prices"]).open_typed_with::<u32, _>(Even);
    let values: Vec<_> =
        consumer.unwrap().poll(Duration::ZERO).unwrap().iter().map(value).collect();
    assert_eq!(values, [2, 4]);
}

#[test]
fn a_codec_that_panics_does_not_hold_up_the_consumer() {
    let broker = prices(1);
    let producer = broker.producer().typed_with("prices", Even);
    producer.send(&2).unwrap();
    // A debug build would decode it before it sends it.
    broker.producer().send(Record::to("prices").value(&102_u32.to_le_bytes())).unwrap();
    producer.send(&4).unwrap();
    let builder = broker.reader().subscribe(["prices"]);
    let mut consumer = builder.open_typed_with::<u32, _>(Even).unwrap();
    assert_eq!(value(&consumer.recv().unwrap()), 2);
    assert!(catch_unwind(AssertUnwindSafe(|| consumer.recv())).is_err());
    assert_eq!(value(&consumer.recv().unwrap()), 4);
}

thread_local! {
    static NESTED: RefCell<Option<Producer>> = const { RefCell::new(None) };
}

/// Serialising it sends another value first, and counts how often that succeeded.
#[derive(Deserialize)]
struct Sends(String);

impl Serialize for Sends {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let producer = NESTED.with_borrow(Clone::clone);
        if let Some(producer) = producer {
            let inner = producer.typed::<String>("t");
            inner.send(&format!("within {}", self.0)).map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&self.0)
    }
}

/// A lock around an encoder, or one buffer for both, would show here.
#[test]
fn a_value_whose_encoding_sends_another_one_is_sent() {
    let broker = in_memory();
    broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
    NESTED.set(Some(broker.producer()));
    broker.producer().typed::<Sends>("t").send(&Sends("outer".into())).unwrap();
    NESTED.set(None);
    let mut consumer = broker.reader().subscribe(["t"]).open_typed::<String>().unwrap();
    let values: Vec<_> = consumer.poll(Duration::ZERO).unwrap().iter().map(value).collect();
    assert_eq!(values, ["within outer", "outer"]);
}

#[test]
fn a_typed_producer_keeps_the_settings_of_the_one_it_is_made_of() {
    let broker = prices(1);
    let old = broker.producer_builder().id("importer").build().unwrap().typed("prices");
    old.send_keyed("k", &change(1)).unwrap();
    let _new = broker.producer_builder().id("importer").build().unwrap();
    let refused = old.send_keyed("k", &change(2));
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    assert!(matches!(old.tombstone("k"), Err(Error::Fenced { .. })));
}

#[test]
fn typed_handles_go_to_other_threads_and_end_with_the_handle() {
    let broker = Broker::in_memory().unwrap();
    broker.ensure_topic("prices", TopicConfig::new(4)).unwrap();
    let producer = broker.producer().typed::<PriceChanged>("prices");
    let consumers: Vec<_> = (0..2).map(|_| feed(&broker, "g")).collect();
    let handles: Vec<_> = consumers.iter().map(TypedConsumer::handle).collect();
    let (total, received) = (400, std::sync::atomic::AtomicU64::new(0));
    std::thread::scope(|scope| {
        for mut consumer in consumers {
            let (received, handles) = (&received, &handles);
            scope.spawn(move || {
                for message in consumer.iter() {
                    value(&message.unwrap());
                    let before = received.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if before + 1 == total {
                        handles.iter().for_each(logpond::ConsumerHandle::shutdown);
                    }
                }
            });
        }
        for thread in 0..4 {
            let producer = producer.clone();
            scope.spawn(move || {
                for number in 0..total / 4 {
                    let value = change(number);
                    producer.send_keyed(&format!("{thread}-{number}"), &value).unwrap();
                }
            });
        }
    });
    // A consumer that joined late may have been given what the other had not committed.
    assert!(received.into_inner() >= total);
}

/// Refuses every value in its own words, which repeat it.
#[derive(Clone, Serialize)]
struct Picky(String);

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Err(serde::de::Error::custom(format_args!("not {text:?} again")))
    }
}

/// All that `{}` and `{:?}` show of what a consumer of `T` reads, and of its errors.
fn shown<T>(broker: &Broker, codec: impl Codec<T>) -> String {
    let mut consumer = broker.reader().subscribe(["prices"]).open_typed_with(codec).unwrap();
    let messages: Vec<TypedMessage<T>> = consumer.poll(Duration::ZERO).unwrap();
    let mut shown = format!("{messages:?} {messages:#?}");
    for error in messages.iter().filter_map(|message| message.value.as_ref().err()) {
        write!(shown, " {error} {error:?} {}", Error::from(error.clone())).unwrap();
    }
    shown
}

#[cfg(feature = "json")]
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Strict {
    Known {},
}

/// Symptom: one `{message:?}` or a logged error of a codec put a customer's record into the log.
/// Cause: the derived `Debug` shows the decoded value, and serde's errors repeat what they refuse.
/// Rule: what is shown of a message or an error says what kind it is, and holds no part of a
/// payload.
#[test]
fn no_message_and_no_error_shows_a_payload() {
    use logpond::Bincode;

    const SECRETS: [&str; 2] = ["hunter2", "1234567"];
    let check = |shown: &str, kind: &str| {
        let leaked = SECRETS.iter().find(|secret| shown.contains(**secret));
        assert_eq!(leaked, None, "{shown}");
        assert!(shown.contains(kind), "{shown}");
    };
    let broker = prices(1);
    let secret = PriceChanged { article: SECRETS[0].into(), cents: 1_234_567, tags: Vec::new() };
    broker.producer().typed::<PriceChanged>("prices").send(&secret).unwrap();
    check(&shown::<PriceChanged>(&broker, Bincode), "a value");
    check(&shown::<Picky>(&broker, Bincode), "do not fit the type");
    let broker = prices(1);
    // The same bytes as those of `Picky`, which a debug build would not send.
    let picky = broker.producer().typed::<String>("prices");
    picky.send(&SECRETS[0].into()).unwrap();
    picky.tombstone("hunter2").unwrap();
    check(&shown::<Picky>(&broker, Bincode), "a tombstone");
    check(&shown::<(char, bool)>(&broker, Bincode), "bincode");

    #[cfg(feature = "json")]
    {
        use logpond::Json;

        let texts = [
            r#"{"article": "a", "cents": "hunter2", "tags": []}"#,
            r#"{"article": 1234567}"#,
            r#"{"article": "a", "cents": -1234567}"#,
            r#"["hunter2"]"#,
            r#""hunter2""#,
            r#""hunter2"#,
            r"hunter2",
            r"1234567",
        ];
        let broker = prices(1);
        for text in texts {
            broker.producer().send(Record::to("prices").value(text)).unwrap();
        }
        let kind = "does not fit the type at line 1 column";
        check(&shown::<PriceChanged>(&broker, Json), kind);
        check(&shown::<Picky>(&broker, Json), kind);
        check(&shown::<Vec<bool>>(&broker, Json), kind);
        check(&shown::<Strict>(&broker, Json), kind);
    }
}

#[cfg(feature = "json")]
#[test]
fn json_is_text_that_others_read() {
    use logpond::Json;

    let broker = prices(1);
    let producer = broker.producer().typed_with("prices", Json);
    producer.send(&change(3)).unwrap();
    broker.producer().send(Record::to("prices").value("{\"article\": 7}")).unwrap();
    broker.producer().send(Record::to("prices").value("{} {}")).unwrap();
    producer.tombstone("sku-1").unwrap();
    let builder = broker.reader().subscribe(["prices"]);
    let mut consumer = builder.open_typed_with::<PriceChanged, _>(Json).unwrap();
    let messages = consumer.poll(Duration::ZERO).unwrap();
    let text = br#"{"article":"sku-1","cents":3,"tags":["new",""]}"#;
    assert_eq!(messages[0].raw.value(), Some(&text[..]));
    assert_eq!(value(&messages[0]), change(3));
    assert_eq!(messages[1].value.as_ref().unwrap_err().codec(), "json");
    assert!(messages[2].value.is_err());
    assert!(matches!(messages[3].value, Ok(None)));
}
