//! Goal: streams and futures work on the executors that applications use.
//!
//! Method: the stories of `tests/async_stream/stories.rs` on tokio (one thread and several) and on
//! smol, and what only an executor can do: timeouts, `select!`, tasks. Not covered: exact wake-ups,
//! which `tests/async_stream.rs` counts by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../async_stream/stories.rs"]
mod stories;

use std::future::Future;
use std::time::Duration;

use common::*;
use logpond::{Broker, TopicConfig};
use stories::{member, next, two_streams_of_a_group};

fn block_on_tokio<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Each story on both executors.
macro_rules! on_executors {
    ($($name:ident)*) => {
        mod on_tokio { $(#[test] fn $name() { super::block_on_tokio(super::stories::$name()); })* }
        mod on_smol { $(#[test] fn $name() { smol::block_on(super::stories::$name()); })* }
    };
}

on_executors! {
    a_stream_waits_for_another_thread
    deliveries_resolve
    a_stream_waits_for_what_is_durable
    a_worker_commits_each_message
    a_task_sends
    a_stream_of_its_own
}

/// On several threads, where a task moves between them at each `.await`.
#[test]
fn the_stories_run_as_tasks_on_the_threads_of_tokio() {
    let builder = &mut tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).build().unwrap().block_on(async {
        let tasks = [
            tokio::spawn(stories::a_stream_of_its_own()),
            tokio::spawn(stories::a_worker_commits_each_message()),
            tokio::spawn(stories::a_task_sends()),
        ];
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn a_stream_of_its_own_runs_as_a_task_of_smol() {
    smol::block_on(smol::spawn(stories::a_stream_of_its_own()));
}

/// The loop of a service: whatever comes first, a message, finished work or the end.
#[test]
fn calls_in_a_select_that_they_lose_again_and_again_lose_nothing() {
    const COUNT: u64 = 300;
    block_on_tokio(async {
        let broker = Broker::in_memory().unwrap();
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        let mut consumer = member(&broker, "g");
        let sender = {
            let broker = broker.clone();
            std::thread::spawn(move || send_numbers(&broker, "t", 0, 0..COUNT))
        };
        let mut inbox = consumer.in_async();
        let mut received = Vec::new();
        while received.len() < 300 {
            tokio::select! {
                biased;
                () = tokio::task::yield_now(), if received.len() % 3 == 1 => {}
                message = inbox.recv() => received.push(number(&message.unwrap())),
            }
            let waited = tokio::time::timeout(Duration::ZERO, inbox.poll()).await;
            received.extend(waited.into_iter().flat_map(Result::unwrap).map(|it| number(&it)));
            inbox.commit().await.unwrap();
        }
        sender.join().unwrap();
        assert_eq!(received, (0..COUNT).collect::<Vec<_>>());
        assert_eq!(consumer.committed(("t", 0)).unwrap(), Some(COUNT));
    });
}

#[test]
fn a_stream_in_a_select_that_it_loses_again_and_again_loses_nothing() {
    const COUNT: u64 = 500;
    block_on_tokio(async {
        let broker = Broker::in_memory().unwrap();
        broker.ensure_topic("t", TopicConfig::new(1)).unwrap();
        let mut consumer = member(&broker, "g");
        let waited = tokio::time::timeout(Duration::ZERO, next(&mut consumer.stream())).await;
        assert!(waited.is_err(), "there is nothing yet: the wait is cancelled");
        let sender = {
            let broker = broker.clone();
            std::thread::spawn(move || send_numbers(&broker, "t", 0, 0..COUNT))
        };
        let mut received = Vec::new();
        while received.len() < 500 {
            // A new stream each time, dropped by a timeout of nothing or by the other branch.
            let mut stream = consumer.stream();
            tokio::select! {
                biased;
                () = tokio::task::yield_now(), if received.len() % 3 == 1 => {}
                message = next(&mut stream) => received.push(number(&message.unwrap().unwrap())),
            }
            let waited = tokio::time::timeout(Duration::ZERO, next(&mut stream)).await;
            received.extend(waited.into_iter().map(|message| number(&message.unwrap().unwrap())));
        }
        sender.join().unwrap();
        assert_eq!(received, (0..COUNT).collect::<Vec<_>>());
        assert!(consumer.try_recv().unwrap().is_none());
    });
}

#[test]
fn two_streams_of_a_group_share_on_the_threads_of_tokio() {
    two_streams_of_a_group(|futures| {
        let builder = &mut tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).build().unwrap().block_on(async {
            let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn two_streams_of_a_group_share_one_thread_of_smol() {
    two_streams_of_a_group(|futures| {
        let executor = smol::LocalExecutor::new();
        let tasks: Vec<_> = futures.into_iter().map(|future| executor.spawn(future)).collect();
        smol::block_on(executor.run(async {
            for task in tasks {
                task.await;
            }
        }));
    });
}
