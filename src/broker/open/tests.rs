//! Openings that fail, and what they leave.

use std::io::ErrorKind;
use std::thread;

use super::*;
use crate::Broker;
use crate::broker::workers::spawn_thread;
use crate::sync::{AtomicBool, Ordering};

/// An opening that got only one of its two threads returned its error while the other still had
/// the directory: the next attempt was `Locked`. The rule: what an opening has begun is over when
/// its error is returned.
// RED: src/broker/open.rs
//   - engine.workers().stop_and_join();
//   + engine.workers().stop();
#[test]
fn row_f14_an_opening_that_gets_no_thread_gives_the_directory_back() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let has_ended = Arc::clone(&ended);
    let spawn = move |name: &'static str, run: Box<dyn FnOnce() + Send>| {
        if name == "logpond-bulk" {
            return Err(ErrorKind::WouldBlock.into());
        }
        let ended = Arc::clone(&has_ended);
        let late = move || {
            (0..1_000).for_each(|_| thread::yield_now());
            run();
            ended.store(true, Ordering::Release);
        };
        spawn_thread(name, Box::new(late))
    };
    let builder = || Broker::builder().data_dir(dir.path()).lock_wait(Duration::ZERO);
    let failed = builder().spawn(Arc::new(spawn)).open();
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert!(ended.load(Ordering::Acquire));
    builder().open().unwrap().close().unwrap();
}
