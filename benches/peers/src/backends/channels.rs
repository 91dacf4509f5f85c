//! Channels: what it costs to hand a value to another thread if nothing is kept.
//!
//! The values travel by value, as arrays: so no allocation is part of the time. Both are unbounded,
//! as a log is.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::mpsc;

use parking_lot::Mutex;

use super::{Contender, NOTHING};
use crate::log::{Log, Outcome, Plan, Read, Write};
use crate::workloads::{Kind, Workload, run};

pub(super) const CROSSBEAM: Contender = Contender {
    name: "crossbeam-channel",
    title: "crossbeam-channel",
    package: Some("crossbeam-channel"),
    survives: |_| NOTHING,
    checks: "in memory only",
    takes: hands_over,
    run: run::<Channels<Crossbeam>>,
};

pub(super) const MPSC: Contender = Contender {
    name: "mpsc",
    title: "std mpsc",
    package: None,
    survives: |_| NOTHING,
    checks: "in memory only",
    takes: hands_over,
    run: run::<Channels<Std>>,
};

const VALUE_BYTES: usize = 100;

type Value = [u8; VALUE_BYTES];

fn hands_over(work: &Workload) -> bool {
    matches!(work.kind, Kind::Stream | Kind::PingPong) && work.value_bytes == VALUE_BYTES
}

trait Channel {
    type Sender: Clone + Send + Sync;
    type Receiver: Send;

    fn new() -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, value: Value) -> bool;
    fn receive(receiver: &Self::Receiver) -> Option<Value>;
}

struct Crossbeam;

impl Channel for Crossbeam {
    type Sender = crossbeam_channel::Sender<Value>;
    type Receiver = crossbeam_channel::Receiver<Value>;

    fn new() -> (Self::Sender, Self::Receiver) {
        crossbeam_channel::unbounded()
    }

    #[inline]
    fn send(sender: &Self::Sender, value: Value) -> bool {
        sender.send(value).is_ok()
    }

    #[inline]
    fn receive(receiver: &Self::Receiver) -> Option<Value> {
        receiver.try_recv().ok()
    }
}

struct Std;

impl Channel for Std {
    type Sender = mpsc::Sender<Value>;
    type Receiver = mpsc::Receiver<Value>;

    fn new() -> (Self::Sender, Self::Receiver) {
        mpsc::channel()
    }

    #[inline]
    fn send(sender: &Self::Sender, value: Value) -> bool {
        sender.send(value).is_ok()
    }

    #[inline]
    fn receive(receiver: &Self::Receiver) -> Option<Value> {
        receiver.try_recv().ok()
    }
}

struct Channels<C: Channel> {
    senders: Vec<C::Sender>,
    /// Each until a reader has taken it.
    receivers: Mutex<Vec<Option<C::Receiver>>>,
}

impl<C: Channel> Log for Channels<C> {
    type Writer<'log>
        = Writer<C>
    where
        Self: 'log;
    type Reader<'log>
        = Reader<C>
    where
        Self: 'log;

    fn open(_: &Path, plan: &Plan) -> Outcome<Self> {
        let (senders, receivers) = (0..plan.logs)
            .map(|_| {
                let (sender, receiver) = C::new();
                (sender, Some(receiver))
            })
            .unzip();
        Ok(Self { senders, receivers: Mutex::new(receivers) })
    }

    fn writer(&self, worker: usize) -> Outcome<Writer<C>> {
        let sender = self.senders.get(worker % self.senders.len()).ok_or("no such channel")?;
        Ok(Writer(sender.clone()))
    }

    fn reader(&self, log: usize, records_max: usize) -> Outcome<Reader<C>> {
        let receiver = self.receivers.lock().get_mut(log).and_then(Option::take);
        let receiver = receiver.ok_or("a channel has one receiver")?;
        Ok(Reader { receiver, records_max, channel: PhantomData })
    }
}

struct Writer<C: Channel>(C::Sender);

impl<C: Channel> Write for Writer<C> {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Outcome<()> {
        let value = value.try_into()?;
        if C::send(&self.0, value) { Ok(()) } else { Err("the receiver was dropped".into()) }
    }
}

struct Reader<C: Channel> {
    receiver: C::Receiver,
    records_max: usize,
    channel: PhantomData<C>,
}

impl<C: Channel> Read for Reader<C> {
    #[inline]
    fn read(&mut self, see: &mut impl FnMut(&[u8])) -> Outcome<u64> {
        let mut count = 0;
        for _ in 0..self.records_max {
            let Some(value) = C::receive(&self.receiver) else { break };
            see(&value);
            count += 1;
        }
        Ok(count)
    }
}
