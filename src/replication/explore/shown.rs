//! What readers of any member have seen, and who led: what must never change.
//!
//! Owns: the visible records of each log, from all that was ever shown. Must not know: worlds,
//! searches.

use std::collections::BTreeMap;

use super::super::log_key::LogKey;
use super::super::logs::MetaChange;
use super::super::membership::MemberRun;
use super::node::{Claim, Rec};
use crate::record::LeaderEpoch;

/// What is committed and who led: from all that was ever shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Shown {
    pub(super) committed: BTreeMap<LogKey, Vec<Rec>>,
    leaders: BTreeMap<LeaderEpoch, MemberRun>,
}

impl Shown {
    pub(super) fn take(&mut self, claim: &Claim) -> Result<(), String> {
        match claim {
            Claim::Bug(what) => return Err((*what).to_owned()),
            Claim::Leads(epoch, run) => {
                if *self.leaders.entry(*epoch).or_insert(*run) != *run {
                    return Err(format!("two leaderships of epoch {epoch:?}"));
                }
            }
            Claim::Current(epoch, seen) => {
                for (log, seen) in seen {
                    let known = self.committed.get(log).map_or(&[][..], |known| known);
                    let before = known.iter().filter(|rec| rec.epoch < *epoch).count() as u64;
                    if before > *seen {
                        return Err(format!("the leader of {epoch:?} lacks records of {log:?}"));
                    }
                }
            }
            Claim::Visible(log, records) => {
                let known = self.committed.entry(*log).or_default();
                let both = known.len().min(records.len());
                if known[..both] != records[..both] {
                    return Err(format!("two values of a visible record of {log:?}"));
                }
                if records.len() > known.len() {
                    known.clone_from(records);
                }
                let meta = self.committed.get(&LogKey::Meta).map_or(&[][..], |meta| meta);
                let creates = |rec: &Rec| match &rec.change {
                    Some(MetaChange::Created { log: created, .. }) => created == log,
                    _ => false,
                };
                if matches!(log, LogKey::Partition { .. }) && !meta.iter().any(creates) {
                    return Err(format!(
                        "records of {log:?} are visible, and its creation may be lost"
                    ));
                }
            }
        }
        Ok(())
    }
}
