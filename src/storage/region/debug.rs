//! What memory says of itself: kind and sizes, never a byte of payload and never an address.
#![deny(unsafe_code)]

use std::fmt;

use super::{Kind, Memory, Region};

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            #[cfg(target_os = "linux")]
            Kind::Mapped { .. } => "mapped",
            Kind::Heap(_) => "heap",
            Kind::View(_) => "view",
            Kind::Absent => "absent",
        };
        write!(f, "{kind} memory of {} bytes", self.capacity)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} published", self.memory, self.published())
    }
}
