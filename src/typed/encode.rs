//! What typed producers do before a send: they encode the value, and look at the record that brings
//! the rest.

use crate::codec::Codec;
use crate::error::{CodecError, Error, Result};
use crate::record::Record;

/// In debug builds also decodes the bytes: a value that is not decoded is acknowledged in vain.
pub(super) fn encode_into<T, C: Codec<T>>(
    codec: &C,
    value: &T,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    codec.encode(value, buffer)?;
    if cfg!(debug_assertions)
        && let Err(error) = codec.decode(buffer)
    {
        let reason = format_args!("what was encoded cannot be decoded ({error})");
        return Err(CodecError::new(codec.name(), reason).into());
    }
    Ok(())
}

/// Whether the record leaves to a typed producer of this topic what that sets.
pub(super) fn check(topic: &str, record: &Record<'_>) -> Result<()> {
    if record.topic.is_some_and(|named| *named != *topic) {
        let reason = "it names another topic than the typed producer's; make it with `new`";
        return Err(Error::config("record", reason));
    }
    if record.value.is_some() {
        let reason = "it has a value already; give the typed one alone";
        return Err(Error::config("record", reason));
    }
    Ok(())
}
