//! A log that another process writes to, looked at again.

use std::sync::Arc;

use super::Log;

impl Log {
    /// Takes over what another look has found: which segments there are, and where they begin. The
    /// end stays: a reader that has come to it holds its segment as it was then.
    pub(crate) fn take_over(&mut self, mut found: Self) {
        found.ends = self.ends.looked_at_again(found.ends);
        (found.now, found.incarnation) = (self.now, self.incarnation);
        self.segments.become_as(&found.segments);
        found.segments = Arc::clone(&self.segments);
        *self = found;
    }
}
