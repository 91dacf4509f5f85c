//! Codecs: the [`Codec`] trait, which turns values into bytes, and its default, [`Bincode`].
//!
//! Owns: the only use of `bincode`, also for the internal logs. It is always called the same way:
//! on a slice, with a limit, under a [`guard`], and all bytes must be consumed. Called directly,
//! `bincode` can be made by nine hostile bytes to allocate until the process aborts, by a few more
//! to overflow the stack, and it accepts extra bytes at the end.

use std::marker::PhantomData;

use bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::guard::{Budget, Guarded};
#[cfg(feature = "json")]
pub use self::json::Json;
pub use self::versioned::{NoVersion, Version, Versioned};
use crate::error::CodecError;

mod guard;
#[cfg(feature = "json")]
mod json;
mod versioned;

/// LIMIT: how many bytes a decoder may allocate: the size of the largest segment, so that every
/// record that can be appended can be read. The guard ensures that these bytes are in the input.
const CLAIM_LIMIT: usize = 1 << 30;

/// Turns values of `T` into bytes and back.
///
/// A codec is called under no lock. Its errors and panics are returned to the caller that sends or
/// reads. If a value cannot be decoded, the consumer continues with the next message. Errors may be
/// logged, so their text must not contain any part of a value; those of [`Bincode`] and `Json` have
/// only the kind of the error and its position.
///
/// ```
/// use logpond::{Codec, CodecError};
///
/// /// Temperatures in tenths of a degree, as text.
/// struct Tenths;
///
/// impl Codec<i32> for Tenths {
///     fn name(&self) -> &'static str {
///         "tenths"
///     }
///
///     fn encode(&self, value: &i32, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
///         buffer.extend_from_slice(value.to_string().as_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<i32, CodecError> {
///         let text = str::from_utf8(bytes).map_err(|error| CodecError::new("tenths", error))?;
///         text.parse().map_err(|error| CodecError::new("tenths", error))
///     }
/// }
/// ```
#[doc(alias = "Serializer")]
#[doc(alias = "Deserializer")]
#[doc(alias = "Serde")]
pub trait Codec<T>: Send + Sync + 'static {
    /// Returns the codec's name, for errors.
    fn name(&self) -> &'static str;

    /// Appends the encoded value to `buffer`.
    ///
    /// # Errors
    ///
    /// If the value cannot be encoded.
    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Returns the value that `bytes` encode.
    ///
    /// # Errors
    ///
    /// If they encode no value, or have bytes after the value.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// The default codec: bincode's standard configuration, all bytes consumed.
///
/// Decoding hostile bytes returns an error: it allocates no more memory than the bytes justify, a
/// value may be nested at most 128 levels deep, and may have at most 65,536 elements more than
/// bytes. A value that exceeds this can be encoded, but not decoded.
///
/// The format contains no names and no types: sender and receiver must use the same type. If a field
/// is added to a struct, old records cannot be decoded by the new type, nor new ones by the old
/// type; [`Versioned`] is for types that change. Types whose decoding depends on names are not
/// decoded at all: `#[serde(skip_serializing_if)]`, `tag`, `untagged`, `flatten`, and
/// `serde_json::Value`.
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
            .map_err(|error| encode_error(&error))
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<CLAIM_LIMIT>();
        let budget = Budget::for_bytes(bytes.len());
        let seed = Guarded::new(PhantomData::<T>, &budget);
        let (value, consumed) = bincode::serde::seed_decode_from_slice(seed, bytes, config)
            .map_err(|error| decode_error(&error, &budget))?;
        if consumed != bytes.len() {
            let left = bytes.len().saturating_sub(consumed);
            return Err(CodecError::new(NAME, format_args!("{left} bytes are left over")));
        }
        Ok(value)
    }
}

/// Converts an error without any part of the value: errors are logged, and values do not belong in
/// logs. A text from serde's `custom` may have one (`invalid value: string "..."`).
fn decode_error(error: &DecodeError, budget: &Budget) -> CodecError {
    match error {
        DecodeError::UnexpectedEnd { .. }
        | DecodeError::LimitExceeded
        | DecodeError::InvalidIntegerType { .. }
        | DecodeError::Utf8 { .. }
        | DecodeError::Serde(_) => CodecError::new(NAME, error),
        _ => match budget.exceeded() {
            Some(limit) => CodecError::new(NAME, limit),
            None => CodecError::new(NAME, "the bytes do not fit the type"),
        },
    }
}

fn encode_error(error: &EncodeError) -> CodecError {
    match error {
        EncodeError::UnexpectedEnd
        | EncodeError::RefCellAlreadyBorrowed { .. }
        | EncodeError::Io { .. }
        | EncodeError::Serde(_) => CodecError::new(NAME, error),
        _ => CodecError::new(NAME, "the type cannot express the value"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    /// Symptom: values of many small parts were encoded, acknowledged, and never decoded again.
    /// Cause: fields and the ends of collections counted as elements. Rule: an element is what a
    /// length in the input counts, and each takes a byte or is one of the few that take none.
    #[test]
    fn values_of_many_small_parts_are_decoded() {
        there_and_back(&vec![(1_u8, 2_u8); 100_000]).unwrap();
        there_and_back(&vec![Vec::<u8>::new(); 100_000]).unwrap();
        there_and_back(&vec![Some((1_u8, (), ())); 100_000]).unwrap();
        let map: BTreeMap<u32, (u8, u8)> = (0..100_000).map(|it| (it, (1, 2))).collect();
        there_and_back(&map).unwrap();
        there_and_back(&vec![[(), ()]; 65_536]).unwrap();
        there_and_back(&vec![(); 1 << 20]).unwrap_err();
    }

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

    fn there_and_back<T>(value: &T) -> Result<(), CodecError>
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let mut bytes = Vec::new();
        Bincode.encode(value, &mut bytes)?;
        let decoded: T = Bincode.decode(&bytes)?;
        assert!(decoded == *value);
        Ok(())
    }

    fn round_trip<T>(value: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let mut bytes = Vec::new();
        Bincode.encode(value, &mut bytes).unwrap();
        assert_eq!(Codec::<T>::decode(&Bincode, &bytes).unwrap(), *value);
        for cut in 0..bytes.len() {
            let decoded: Result<T, _> = Bincode.decode(&bytes[..cut]);
            assert!(decoded.is_err(), "{cut} of {} bytes: {decoded:?}", bytes.len());
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Unit,
        Newtype(Box<Shape>),
        Tuple(u8, i64),
        Struct { text: String, maybe: Option<f64>, bytes: Box<[u8]> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapper(Vec<Shape>);

    #[test]
    fn every_kind_of_value_comes_back_and_no_prefix_of_it() {
        round_trip(&Wrapper(vec![
            Shape::Unit,
            Shape::Newtype(Box::new(Shape::Newtype(Box::new(Shape::Unit)))),
            Shape::Tuple(255, i64::MIN),
            Shape::Struct { text: "ä𝄞".into(), maybe: Some(-0.5), bytes: [0, 255].into() },
            Shape::Struct { text: String::new(), maybe: None, bytes: [].into() },
        ]));
        round_trip(&(1u8, 2u16, 3u32, u64::MAX, u128::MAX, i8::MIN, -2i16, -3i32, i128::MIN));
        round_trip(&('𝄞', true, 0.25f32, (1u8, 2u8), [7u16; 3]));
        round_trip(&BTreeMap::from([("a".to_owned(), vec![Some(1), None]), ("b".into(), vec![])]));
    }

    /// Each byte 1 is one more level.
    #[test]
    fn hostile_nesting_is_an_error_not_the_end_of_the_stack() {
        let decoded: Result<Shape, _> = Bincode.decode(&vec![1; 1 << 20]);
        assert!(decoded.unwrap_err().to_string().contains("levels deep"));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Chain(Option<Box<Chain>>);

    #[test]
    fn hostile_nesting_is_found_in_options_too() {
        let decoded: Result<Chain, _> = Bincode.decode(&vec![1; 1 << 20]);
        assert!(decoded.unwrap_err().to_string().contains("levels deep"));
        let shallow = (0..40).fold(Chain(None), |inner, _| Chain(Some(Box::new(inner))));
        let mut bytes = Vec::new();
        Bincode.encode(&shallow, &mut bytes).unwrap();
        assert_eq!(Codec::<Chain>::decode(&Bincode, &bytes).unwrap(), shallow);
    }

    /// Elements that take no bytes: only the count says how often to loop.
    #[test]
    fn a_hostile_count_of_nothing_is_an_error_not_an_endless_loop() {
        let hostile = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let decoded: Result<Vec<()>, _> = Bincode.decode(&hostile);
        assert!(decoded.unwrap_err().to_string().contains("more elements"));
        round_trip(&vec![(); 1000]);
    }

    #[test]
    fn a_hostile_length_of_a_string_is_an_error() {
        let mut hostile = vec![252];
        hostile.extend_from_slice(&(512u32 << 20).to_le_bytes());
        let decoded: Result<String, _> = Bincode.decode(&hostile);
        assert!(decoded.is_err());
        let decoded: Result<Shape, _> = Bincode.decode(&[&[3], &hostile[..]].concat());
        assert!(decoded.is_err());
    }

    /// Wants to own text or bytes, and notes whether it was shown the input or a buffer.
    struct Shown<const TEXT: bool>(bool);

    impl<const TEXT: bool> Serialize for Shown<TEXT> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str("text")
        }
    }

    impl<'de, const TEXT: bool> Deserialize<'de> for Shown<TEXT> {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Looks;
            impl<'de> serde::de::Visitor<'de> for Looks {
                type Value = bool;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("text")
                }
                fn visit_borrowed_str<E>(self, _: &'de str) -> Result<bool, E> {
                    Ok(true)
                }
                fn visit_borrowed_bytes<E>(self, _: &'de [u8]) -> Result<bool, E> {
                    Ok(true)
                }
                fn visit_str<E>(self, _: &str) -> Result<bool, E> {
                    Ok(false)
                }
                fn visit_bytes<E>(self, _: &[u8]) -> Result<bool, E> {
                    Ok(false)
                }
            }
            let shown = if TEXT {
                deserializer.deserialize_string(Looks)
            } else {
                deserializer.deserialize_byte_buf(Looks)
            };
            shown.map(Self)
        }
    }

    /// A buffer would be as long as a hostile prefix says, before a byte of it is seen.
    #[test]
    fn what_owns_text_or_bytes_copies_them_from_the_input() {
        let mut bytes = Vec::new();
        Bincode.encode(&Shown::<true>(false), &mut bytes).unwrap();
        assert!(Codec::<Shown<true>>::decode(&Bincode, &bytes).unwrap().0);
        assert!(Codec::<Shown<false>>::decode(&Bincode, &bytes).unwrap().0);
    }
}
