//! How values become bytes: the [`Codec`] trait and its default, [`Bincode`].
//!
//! The engine's own logs use the same default. The only file that imports `bincode`, and always
//! the same way: from a slice, with a limit, all bytes consumed. Without a limit nine hostile
//! bytes can make it allocate until the process aborts; left-over bytes it would accept.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CodecError;

/// LIMIT: the most that decoding may claim, in bytes. Far above any record, far below memory.
const CLAIM_LIMIT: usize = 64 << 20;

/// Turns values of `T` into bytes and back.
pub trait Codec<T>: Send + Sync + 'static {
    /// The codec's name, for errors.
    fn name(&self) -> &'static str;

    /// Appends the encoded value to `buffer`.
    ///
    /// # Errors
    ///
    /// When the value cannot be expressed.
    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value that all of `bytes` express.
    ///
    /// # Errors
    ///
    /// When they express none, or bytes are left over.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// The default codec: bincode's standard configuration with a limit on what decoding may claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bincode;

const NAME: &str = "bincode";

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        let config = bincode::config::standard().with_limit::<CLAIM_LIMIT>();
        bincode::serde::encode_into_std_write(value, buffer, config)
            .map(|_written| ())
            .map_err(|error| CodecError::new(NAME, error))
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<CLAIM_LIMIT>();
        let (value, consumed) = bincode::serde::decode_from_slice(bytes, config)
            .map_err(|error| CodecError::new(NAME, error))?;
        if consumed != bytes.len() {
            let left = bytes.len().saturating_sub(consumed);
            return Err(CodecError::new(NAME, format_args!("{left} bytes are left over")));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_hostile_bytes_are_an_error_not_an_allocation() {
        let hostile = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let decoded: Result<Vec<u64>, _> = Bincode.decode(&hostile);
        assert!(decoded.is_err(), "{decoded:?}");
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        let mut bytes = Vec::new();
        Bincode.encode(&7u32, &mut bytes).unwrap();
        assert_eq!(Codec::<u32>::decode(&Bincode, &bytes).unwrap(), 7);
        bytes.push(0);
        let decoded: Result<u32, _> = Bincode.decode(&bytes);
        assert!(decoded.unwrap_err().to_string().contains("left over"));
    }
}
