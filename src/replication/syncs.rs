//! What members do for producers that are stricter than the topic: see [`Strict`].
//!
//! Functions over the state of a member. Must not know: how a log is synced, and who waits.

use super::effect::Effect;
use super::leader::Leader;
use super::log_key::LogKey;
use super::logs::Log;
use super::membership::Membership;
use super::state::{Effects, State};
use super::strict::Strict;

/// At the leader: a producer waits for what is below `wanted`. Whether that is news.
pub(super) fn want(state: &mut State, key: LogKey, wanted: u64) -> bool {
    let Some(log) = state.logs_mut().get_mut(key) else { return false };
    let is_news = !log.counts_synced && log.strict.wanted < wanted;
    if is_news {
        log.strict.wanted = wanted;
    }
    is_news
}

/// At the leader: counts how far a majority of each of these memberships has synced a log. Whether that
/// is news.
pub(super) fn count(
    state: &mut State,
    leader: &Leader,
    key: LogKey,
    needed: &[(u64, Membership)],
    out: &mut Effects,
) -> bool {
    let (me, own) = (state.me(), state.logs().synced_end(key));
    let Some(log) = state.logs_mut().get_mut(key).filter(|log| log.strict.is_open()) else {
        return false;
    };
    let reached = leader.reached(key, me, own, true, needed).unwrap_or(0).min(log.watermark);
    let is_news = log.strict.synced < reached;
    if is_news {
        log.strict.synced = reached;
        out.push(Effect::Synced { log: key, offset: reached });
    }
    is_news
}

/// A member leads, or follows another one: nobody waits yet.
pub(super) fn forget_all(state: &mut State) {
    for key in state.keys() {
        if let Some(log) = state.logs_mut().get_mut(key) {
            log.strict = Strict::default();
        }
    }
}

/// At a follower whose log is equal to the leader's up to its end: what the leader says of it.
pub(super) fn hear(state: &mut State, key: LogKey, said: Strict, out: &mut Effects) {
    let (synced, meta) = (state.logs().synced_end(key), state.logs().synced_end(LogKey::Meta));
    let Some(log) = state.logs_mut().get_mut(key) else { return };
    // An answer may be older than the one before.
    let Strict { wanted, synced: reached } = log.strict;
    log.strict = Strict { wanted: wanted.max(said.wanted), synced: reached.max(said.synced) };
    if log.strict.is_open() && synced < log.strict.wanted.min(log.end()) {
        if log.created.is_some_and(|created| created.offset >= meta) {
            // A log counts as synced once its creation is.
            out.push(Effect::SyncSoon(LogKey::Meta));
        }
        out.push(Effect::SyncSoon(key));
    }
}

/// At a follower that has synced a log: the logs of which the leader has to hear that.
pub(super) fn to_report(state: &State, key: LogKey) -> Vec<LogKey> {
    let counts = |log: &Log| log.counts_synced || log.strict.is_open();
    let own = state.logs().get(key).filter(|log| counts(log)).map(|_| key);
    // Logs whose creation was not synced.
    let others = state.logs().iter().filter(|(of, log)| *of != key && log.strict.is_open());
    let others = others.map(|(of, _)| of);
    let others = (key == LogKey::Meta).then_some(others);
    own.into_iter().chain(others.into_iter().flatten()).collect()
}
