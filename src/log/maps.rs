//! The maps of a broker's sealed segments: how many there may be.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::segment::Segment;
use crate::sync::Mutex;

/// The maps of sealed segments, least recently made first. Over the limit, those that no message
/// holds are dropped; they are made again when somebody reads there.
#[derive(Debug)]
pub(crate) struct MapBudget {
    limit: usize,
    maps: Mutex<VecDeque<Weak<Segment>>>,
}

impl MapBudget {
    /// LIMIT: a quarter of the kernel's default `vm.max_map_count` (65,530); active segments and
    /// the rest of the process need maps too.
    pub(crate) const DEFAULT_LIMIT: usize = 16 << 10;

    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, maps: Mutex::new(VecDeque::new()) }
    }

    pub(super) fn register(&self, segment: &Arc<Segment>) {
        /// LIMIT: as many steps as keep a call short. Where messages hold thousands of maps, the
        /// calls together go round, and the budget is exceeded meanwhile.
        const CANDIDATES: usize = 64;
        let mut maps = self.maps.lock();
        maps.push_back(Arc::downgrade(segment));
        // Maps that messages hold go to the back.
        let mut candidates = maps.len().min(CANDIDATES);
        while maps.len() > self.limit && candidates > 0 {
            candidates -= 1;
            let Some(oldest) = maps.pop_front() else { break };
            let Some(oldest) = oldest.upgrade() else { continue };
            if !oldest.try_drop_map() {
                maps.push_back(Arc::downgrade(&oldest));
            }
        }
    }
}
