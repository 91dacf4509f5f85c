//! Where the logs of a leader begin, for those who have missed it.

use super::super::log_key::LogKey;
use super::super::member::say_start;
use super::super::state::Effects;
use super::{Catalog, Shell};

/// Says again where these logs begin.
pub(crate) fn say_starts<C: Catalog>(shell: &mut Shell<C>, logs: impl Iterator<Item = LogKey>) {
    for key in logs {
        let mut effects = Effects::new();
        say_start(&mut shell.member, key, &mut effects);
        shell.carry_out(effects, None);
    }
}
