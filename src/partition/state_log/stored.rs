//! The stored form of the records of an internal log.
//!
//! ```text
//! key    version (1) · kind · number, as a variable-length integer
//! value  the change; of a trim, the offset
//! ```
//!
//! | kind | record | number |
//! |---:|---|---|
//! | 0 | a change | its own: one more than that of the change before |
//! | 1 | a copy of an entry that is in force, appended so that the older record can go | that of the change that it repeats |
//! | 2 | a trim: all records below the offset in its value are not needed any more | that of the next change |
//!
//! Changes therefore have an order of their own, which no clean-up alters: it is what can be
//! replicated, while copies and trims stay on one machine. 0 is the number of all changes that
//! were stored before changes had one.
//!
//! FORMAT: the form before, which is read for ever, had no numbers: a change had no key, and a
//! record with the key `snapshot` began a segment and replaced all before it. Segments that may
//! hold the new form have a feature bit in their header ([`NUMBERED_CHANGES`]).
//!
//! [`NUMBERED_CHANGES`]: crate::format::NUMBERED_CHANGES

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Bincode, Codec};
use crate::error::{CorruptionKind, Result};

/// The key of the first record of a snapshot, in the form before.
pub(crate) const SNAPSHOT_KEY: &[u8] = b"snapshot";

const VERSION: u8 = 1;
const CHANGE: u8 = 0;
const COPY: u8 = 1;
const TRIM: u8 = 2;

/// What a record of an internal log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// All before it is void.
    Snapshot,
    Change {
        number: u64,
        value: &'a [u8],
    },
    Copy {
        number: u64,
        value: &'a [u8],
    },
    Trim {
        start: u64,
        next_number: u64,
    },
}

impl<'a> Stored<'a> {
    pub(crate) fn read(
        key: Option<&[u8]>,
        value: Option<&'a [u8]>,
    ) -> Result<Self, CorruptionKind> {
        let value = value.unwrap_or_default();
        match key {
            None => Ok(Self::Change { number: 0, value }),
            Some(SNAPSHOT_KEY) => Ok(Self::Snapshot),
            Some([VERSION, kind, number @ ..]) => {
                let number = decoded(number)?;
                match *kind {
                    CHANGE if number > 0 && number < u64::MAX => Ok(Self::Change { number, value }),
                    COPY => Ok(Self::Copy { number, value }),
                    TRIM => Ok(Self::Trim { start: decoded(value)?, next_number: number }),
                    _ => Err(refused()),
                }
            }
            Some(_) => Err(refused()),
        }
    }

    /// The key of the record.
    pub(crate) fn key(&self) -> Result<Vec<u8>> {
        let mut key = Vec::new();
        self.write_key(&mut key)?;
        Ok(key)
    }

    /// Appends the key of the record to `key`.
    pub(super) fn write_key(&self, key: &mut Vec<u8>) -> Result<()> {
        let (kind, number) = match *self {
            Self::Snapshot => {
                key.extend_from_slice(SNAPSHOT_KEY);
                return Ok(());
            }
            Self::Change { number, .. } => (CHANGE, number),
            Self::Copy { number, .. } => (COPY, number),
            Self::Trim { next_number, .. } => (TRIM, next_number),
        };
        key.extend_from_slice(&[VERSION, kind]);
        encode(&number, key)
    }
}

/// The stored value of a change or of an offset.
pub(crate) fn encoded<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(value, &mut bytes)?;
    Ok(bytes)
}

/// Appends the stored value of a change or of an offset to `bytes`.
pub(super) fn encode<T: Serialize + DeserializeOwned>(
    value: &T,
    bytes: &mut Vec<u8>,
) -> Result<()> {
    Ok(Bincode.encode(value, bytes)?)
}

pub(crate) fn decoded<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, CorruptionKind> {
    Bincode.decode(bytes).map_err(|_| refused())
}

fn refused() -> CorruptionKind {
    CorruptionKind::Malformed("an internal record")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(stored: Stored<'_>) {
        let key = stored.key().unwrap();
        let value = match stored {
            Stored::Snapshot => Vec::new(),
            Stored::Change { value, .. } | Stored::Copy { value, .. } => value.to_vec(),
            Stored::Trim { start, .. } => encoded(&start).unwrap(),
        };
        assert_eq!(Stored::read(Some(&key), Some(&value)), Ok(stored));
    }

    #[test]
    fn records_read_back() {
        for number in [1, 250, 251, 70_000, u64::MAX - 1] {
            read_back(Stored::Change { number, value: b"v" });
            read_back(Stored::Copy { number, value: b"" });
            read_back(Stored::Trim { start: number, next_number: number });
        }
        read_back(Stored::Copy { number: 0, value: b"from before" });
        read_back(Stored::Snapshot);
        let bare = Stored::Change { number: 0, value: b"bare" };
        assert_eq!(Stored::read(None, Some(b"bare")), Ok(bare));
    }

    /// The bytes are fixed: directories hold them.
    #[test]
    fn the_bytes_of_a_record_are_fixed() {
        let key = |stored: Stored<'_>| stored.key().unwrap();
        assert_eq!(key(Stored::Change { number: 5, value: b"" }), [1, 0, 5]);
        assert_eq!(key(Stored::Copy { number: 300, value: b"" }), [1, 1, 251, 44, 1]);
        assert_eq!(key(Stored::Trim { start: 7, next_number: 0 }), [1, 2, 0]);
        assert_eq!(encoded(&7_u64).unwrap(), [7]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let hostile: [&[u8]; 9] = [
            b"",
            b"snap",
            &[1],
            &[1, 0],
            &[1, 0, 0],
            &[1, 3, 1],
            &[2, 0, 1],
            &[1, 0, 1, 1],
            &[1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 255],
        ];
        for key in hostile {
            assert_eq!(Stored::read(Some(key), Some(b"")), Err(refused()), "{key:?}");
        }
        assert_eq!(Stored::read(Some(&[1, 2, 1]), Some(b"")), Err(refused()), "no offset");
    }
}
