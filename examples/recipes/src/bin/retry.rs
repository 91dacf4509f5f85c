//! Retry with back-off and dead letters: a message that fails does not hold up the others.
//!
//! There is one topic for each delay. A message that fails is sent to the next one, where it is due
//! when it has been there for that time. So in each partition the first record is due first, and
//! until then the partition is paused. What fails in the last topic is sent to the dead letters.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use logpond::{Broker, Clock, Consumer, Error, ManualClock, Message, Producer, Record, StartAt};
use logpond::{TimestampType, TopicConfig, TopicPartition};

const STAGES: [(&str, Duration); 3] = [
    ("emails", Duration::ZERO),
    ("emails.retry-1s", Duration::from_secs(1)),
    ("emails.retry-60s", Duration::from_secs(60)),
];
const DEAD: &str = "emails.dead";
/// The same in all these topics: a message keeps its partition.
const PARTITIONS: u32 = 4;

type Deliver<'a> = dyn FnMut(&Message) -> Result<(), String> + 'a;

struct Worker<C> {
    inbox: Consumer,
    retries: Producer,
    clock: C,
    /// Paused, and when the first message is due.
    waiting: BTreeMap<TopicPartition, SystemTime>,
}

impl<C: Clock> Worker<C> {
    fn open(broker: &Broker, clock: C) -> logpond::Result<Self> {
        for (topic, _) in STAGES {
            // The timestamp is that of the append, also if the record brings another.
            let config = TopicConfig::new(PARTITIONS).timestamps(TimestampType::AppendTime);
            broker.ensure_topic(topic, config)?;
        }
        broker.ensure_topic(DEAD, TopicConfig::new(PARTITIONS).retention(Duration::MAX))?;
        let inbox = broker.consumer("mailer").subscribe(STAGES.map(|(topic, _)| topic)).open()?;
        // Several workers share one producer with this id (`clone`).
        let retries = broker.producer_builder().id("mailer-retries").build()?;
        Ok(Self { inbox, retries, clock, waiting: BTreeMap::new() })
    }

    /// Waits for a message, at most until the next retry is due, and handles it. False: none came.
    fn step(&mut self, at_most: Duration, deliver: &mut Deliver<'_>) -> logpond::Result<bool> {
        let now = self.clock.now();
        let owned = self.inbox.assignment();
        self.waiting.retain(|partition, _| owned.contains(partition));
        self.inbox.resume(self.waiting.iter().filter(|(_, due)| **due <= now).map(|it| it.0))?;
        self.waiting.retain(|_, due| *due > now);
        let next = self.waiting.values().min().and_then(|due| due.duration_since(now).ok());
        let timeout = next.map_or(at_most, |next| next.min(at_most));
        let Some(message) = self.inbox.recv_timeout(timeout)? else { return Ok(false) };

        let mut stages = STAGES.iter().skip_while(|(topic, _)| *topic != message.topic());
        let delay = stages.next().map_or(Duration::ZERO, |(_, delay)| *delay);
        let (partition, due) = (message.topic_partition(), message.timestamp() + delay);
        if due > self.clock.now() {
            self.inbox.seek(&partition, StartAt::Offset(message.offset()))?;
            self.inbox.pause([&partition])?;
            self.waiting.insert(partition, due);
            return Ok(true);
        }
        if let Err(reason) = deliver(&message) {
            let next = stages.next().map_or(DEAD, |(topic, _)| *topic);
            let retry = Record::from(&message).topic(next).partition(message.partition());
            // The number: if this message comes again after a crash, it is not forwarded again.
            self.retries.send_sequenced(message.offset(), retry.header("error", &reason))?;
        }
        match self.inbox.commit_message(&message) {
            Err(Error::Rebalanced { .. }) => Ok(true), // its new owner gets the message, too
            committed => committed.map(|()| true),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let broker = Broker::builder().in_memory().clock(clock.clone()).open()?;
    let mut worker = Worker::open(&broker, clock.clone())?;
    for user in ["busy", "nobody", "user-7"] {
        broker.producer().send(Record::to("emails").partition(0).value(user))?;
    }
    let (began, mut attempts) = (clock.now(), BTreeMap::<String, Vec<u64>>::new());
    let mut deliver = |message: &Message| {
        let user = String::from_utf8_lossy(message.value().unwrap_or_default()).into_owned();
        let of_user = attempts.entry(user.clone()).or_default();
        of_user.push(clock.now().duration_since(began).unwrap_or_default().as_secs());
        match user.as_str() {
            "busy" if of_user.len() < 3 => Err("try again later".to_owned()),
            "nobody" => Err("no such mailbox".to_owned()),
            _ => Ok(()),
        }
    };
    // A service calls `step` in a loop. Here the clock is moved to when the next retry is due.
    loop {
        while worker.step(Duration::ZERO, &mut deliver)? {}
        let Some(due) = worker.waiting.values().min() else { break };
        clock.set(*due);
    }
    // The process dies before the first commits, and all of it is delivered again.
    drop(worker);
    broker.admin().reset_offsets("mailer", "emails", StartAt::Earliest)?;
    let mut worker = Worker::open(&broker, clock.clone())?;
    while worker.step(Duration::ZERO, &mut deliver)? {}
    let seconds = |user| attempts.get(user).map(Vec::as_slice);
    assert_eq!(seconds("user-7"), Some(&[0, 61][..]), "not held up by those before it");
    assert_eq!(seconds("busy"), Some(&[0, 1, 61, 61][..]));
    assert_eq!(seconds("nobody"), Some(&[0, 1, 61, 61][..]));
    let mut dead = broker.reader().subscribe([DEAD]).open()?;
    let letter = dead.try_recv()?.ok_or("no dead letter")?;
    assert_eq!(letter.value(), Some(&b"nobody"[..]));
    assert_eq!(letter.headers().get("error"), Some(&b"no such mailbox"[..]));
    assert!(worker.waiting.is_empty(), "what failed again is not forwarded again");
    println!("attempts at these seconds: {attempts:?}");
    Ok(broker.close()?)
}
