//! The published end: the one word that decides which bytes readers see.
//!
//! Owns the position up to which a region is published, and the orderings that make the bytes
//! below it visible with it. Must not know the bytes. The writer advances it under the partition's
//! lock; readers load it from any thread without one.
#![deny(unsafe_code)]

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicUsize, Ordering};

/// On a cache line of its own: the writer changes it per batch, readers of other fields must not
/// pay. ORDERING: Release by the sole writer, Acquire by readers; see below what breaks.
#[derive(Debug)]
pub(super) struct Published(CachePadded<AtomicUsize>);

impl Published {
    pub(super) fn new(end: usize) -> Self {
        Self(CachePadded::new(AtomicUsize::new(end)))
    }

    #[inline]
    pub(super) fn end(&self) -> usize {
        // ORDERING: pairs with the Release in `advance`. Who sees an end must see the bytes below
        // it; with Relaxed a reader could find zeros there.
        self.0.load(Ordering::Acquire)
    }

    /// Called by the sole writer, after the bytes below `end` were stored.
    #[inline]
    pub(super) fn advance(&self, end: usize) {
        // ORDERING: pairs with the Acquire in `end`. The bytes below `end` were stored before; with
        // Relaxed a reader could see the end without them.
        self.0.store(end, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Memory in which each word may lag behind: relaxed stores, as plain stores to a map are to
    /// another processor.
    struct Memory {
        words: [AtomicUsize; 2],
        published: Published,
    }

    #[test]
    fn loom_who_sees_the_published_end_sees_every_byte_below_it() {
        loom::model(|| {
            let words = [AtomicUsize::new(0), AtomicUsize::new(0)];
            let memory = Arc::new(Memory { words, published: Published::new(0) });
            let writer = {
                let memory = Arc::clone(&memory);
                thread::spawn(move || {
                    for (index, word) in memory.words.iter().enumerate() {
                        word.store(index + 1, Ordering::Relaxed);
                        memory.published.advance(index + 1);
                    }
                })
            };
            let mut last = 0;
            for _ in 0..2 {
                let end = memory.published.end();
                assert!(end >= last, "the end never goes back");
                last = end;
                for (index, word) in memory.words.iter().take(end).enumerate() {
                    assert_eq!(word.load(Ordering::Relaxed), index + 1);
                }
            }
            writer.join().unwrap();
        });
    }
}
