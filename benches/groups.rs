//! Groups: how long a rebalance takes, what a commit costs, and reading many partitions at once.
//!
//! - Rebalance: 1,000 partitions over 100 members, from the first join to the moment from which
//!   every member has its ten, with one thread that polls all members in turn. Beside it: the same
//!   when one member has everything and the other 99 come later, and the departure of all.
//! - Commit: one partition, one member, no one else. At `Sync` the records were synced before, so
//!   what is measured is the commit's own sync; then four threads that share syncs.
//! - Reading: the same records in one partition and in a hundred, in turns.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot continue must not continue"
)]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

use std::hint::black_box;
use std::time::Duration;

use logpond::{Broker, Consumer, Durability, Record, TopicConfig};

use common::{Bench, Rounds, TOPIC, in_turns, now, per_second, seconds, times};

mod common;

const PARTITIONS: u32 = 1_000;
const MEMBERS: usize = 100;

fn main() {
    let bench = Bench::start("groups", "Os, and Sync where it says so");
    rebalance(&bench);
    commit_at_os(&bench);
    commit_at_sync(&bench);
    many_partitions(&bench);
}

fn broker(bench: &Bench, name: &str, durability: Durability) -> Broker {
    let dir = bench.dir().join(name);
    Broker::builder().data_dir(dir).durability(durability).open().expect("a broker")
}

fn member(broker: &Broker, group: &str) -> Consumer {
    broker.consumer(group).subscribe([TOPIC]).open().expect("a member")
}

fn poll(member: &mut Consumer) -> usize {
    member.poll(Duration::ZERO).expect("poll").len()
}

fn poll_until_even(members: &mut [Consumer]) {
    let share = PARTITIONS as usize / members.len();
    while members.iter().any(|member| member.assignment().len() != share) {
        for member in &mut *members {
            poll(member);
        }
    }
}

fn rebalance(bench: &Bench) {
    let broker = Broker::builder().in_memory().durability(Durability::Os).open().expect("a broker");
    broker.ensure_topic(TOPIC, TopicConfig::new(PARTITIONS)).expect("a topic");
    let (mut together, mut later, mut departure) =
        (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..bench.scale(9, 1) {
        let start = now();
        let mut members: Vec<_> =
            (0..MEMBERS).map(|_| member(&broker, &format!("together-{round}"))).collect();
        poll_until_even(&mut members);
        together.push(start.elapsed().as_secs_f64());
        let start = now();
        drop(members);
        departure.push(start.elapsed().as_secs_f64());

        let group = format!("later-{round}");
        let mut members = vec![member(&broker, &group)];
        poll_until_even(&mut members);
        let start = now();
        members.extend((1..MEMBERS).map(|_| member(&broker, &group)));
        poll_until_even(&mut members);
        later.push(start.elapsed().as_secs_f64());
    }
    println!("\n  {PARTITIONS} partitions over {MEMBERS} members, one thread");
    println!("  all join, until all have their share    {}", together.show(seconds));
    println!("  one has all, the others join            {}", later.show(seconds));
    println!("  all leave, one after the other          {}", departure.show(seconds));
}

fn commit_at_os(bench: &Bench) {
    let broker = broker(bench, "os", Durability::Os);
    let records = bench.scale(200_000_u64, 100);
    let (mut each, mut soon) = (Rounds::default(), Rounds::default());
    broker.ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic");
    let partition = broker.topic(TOPIC).and_then(|topic| topic.partition(0)).expect("there");
    for _ in 0..records / 100 {
        partition.append_batch(&vec![Record::new().value("x"); 100]).expect("append");
    }
    for round in 0..bench.scale(7, 1) {
        let mut consumer = member(&broker, &format!("g-{round}"));
        let mut left = records;
        let start = now();
        let mut spent = Duration::ZERO;
        while left > 0 {
            consumer.try_recv().expect("recv").expect("a record");
            let begin = now();
            consumer.commit().expect("commit");
            spent += begin.elapsed();
            left -= 1;
        }
        black_box(start);
        each.push(spent.as_secs_f64() / records as f64);
        let start = now();
        for _ in 0..records {
            consumer.commit_soon().expect("commit");
        }
        soon.push(start.elapsed().as_secs_f64() / records as f64);
    }
    println!("\n  commit() of one partition at Os, {records} times, clock readings included");
    println!("  one member, after each record           {}", each.show(seconds));
    println!("  commit_soon(), the position as it is   {}", soon.show(seconds));
}

fn commit_at_sync(bench: &Bench) {
    const THREADS: usize = 4;
    let broker = broker(bench, "sync", Durability::Sync);
    broker.ensure_topic(TOPIC, TopicConfig::new(1)).expect("a topic");
    broker.producer().send(Record::to(TOPIC).value("x")).expect("send");
    let commits = bench.scale(200_u32, 2);
    let (mut alone, mut shared) = (Rounds::default(), Rounds::default());
    let run = |group: String| {
        let mut consumer = member(&broker, &group);
        poll(&mut consumer);
        for _ in 0..commits {
            consumer.commit().expect("commit");
        }
    };
    for _ in 0..bench.scale(5, 1) {
        let start = now();
        run("alone".into());
        alone.push(f64::from(commits) / start.elapsed().as_secs_f64());
        let start = now();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || run(format!("shared-{thread}")));
            }
        });
        let all = f64::from(commits) * THREADS as f64;
        shared.push(all / start.elapsed().as_secs_f64());
    }
    println!("\n  commit() at Sync, durable on return");
    println!("  one thread                              {}", alone.show(per_second));
    println!(
        "  {THREADS} threads, {THREADS} groups                     {}",
        shared.show(per_second)
    );
    println!("  over one thread                         {}", shared.over(&alone).show(times));
}

fn many_partitions(bench: &Bench) {
    let broker = broker(bench, "many", Durability::Os);
    let records = bench.scale(1_000_000_u32, 1_000);
    let value = [0xa5; 100];
    for (name, partitions) in [("one", 1), ("hundred", 100)] {
        let config = TopicConfig::new(partitions).segment_bytes(8 << 20);
        let topic = broker.ensure_topic(name, config).expect("a topic");
        // Interleaved, as producers leave them.
        for number in 0..records / 10 {
            let partition = topic.partition(number % partitions).expect("there");
            partition.append_batch(&vec![Record::new().value(&value); 10]).expect("append");
        }
    }
    let read = |name: &'static str, by_recv: bool| {
        let broker = broker.clone();
        move || {
            let mut consumer = broker.reader().subscribe([name]).open().expect("a reader");
            let (mut seen, start) = (0, now());
            while seen < records {
                if by_recv {
                    black_box(consumer.try_recv().expect("recv").expect("a record").value());
                    seen += 1;
                    continue;
                }
                for message in consumer.poll(Duration::ZERO).expect("poll").iter() {
                    black_box(message.value());
                    seen += 1;
                }
            }
            f64::from(records) / start.elapsed().as_secs_f64()
        }
    };
    for (way, by_recv) in [("poll", false), ("recv", true)] {
        let [one, hundred] = in_turns(
            bench.scale(7, 1),
            &mut [&mut read("one", by_recv), &mut read("hundred", by_recv)],
        );
        println!("\n  the same records in one partition and in a hundred, by {way}");
        println!("  one                                     {}", one.show(per_second));
        println!("  a hundred                               {}", hundred.show(per_second));
        println!("  a hundred over one                      {}", hundred.over(&one).show(times));
    }
}
