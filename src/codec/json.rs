//! JSON, for records that people and other programs also read.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::Codec;
use crate::error::CodecError;

/// JSON text in UTF-8, by `serde_json`. Needs the feature `json`.
///
/// Values nest at most 128 levels deep; white space around a value is allowed, anything else that
/// is left over is an error. JSON has neither bytes nor keys that are no strings: a map with other
/// keys cannot be encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

const NAME: &str = "json";

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(&self, value: &T, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
        let written = serde_json::to_writer(buffer, value);
        written.map_err(|error| described(&error, "the type cannot express the value"))
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let read = serde_json::from_slice(bytes);
        read.map_err(|error| described(&error, "the text does not fit the type"))
    }
}

/// Says of an error only what cannot hold a part of the value: errors are logged, and values do not
/// belong in logs. Errors of syntax are fixed texts; those of data repeat the value
/// (`invalid type: string "..."`, ``unknown field `...` ``) or are a type's own words.
fn described(error: &serde_json::Error, of_data: &str) -> CodecError {
    match (error.classify(), error.line()) {
        (Category::Data, 0) => CodecError::new(NAME, of_data),
        (Category::Data, line) => {
            let column = error.column();
            CodecError::new(NAME, format_args!("{of_data} at line {line} column {column}"))
        }
        (Category::Io | Category::Syntax | Category::Eof, _) => CodecError::new(NAME, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_value_or_more_than_one_is_an_error() {
        for bytes in [&b""[..], b"{", b"1 2", b"nul", b"\xff", b"\"\xff\""] {
            let decoded: Result<serde_json::Value, _> = Json.decode(bytes);
            assert!(decoded.is_err(), "{bytes:?}: {decoded:?}");
        }
        let decoded: Result<u32, _> = Json.decode(b" 7\n");
        assert_eq!(decoded.unwrap(), 7);
    }

    #[test]
    fn hostile_nesting_is_an_error_not_the_end_of_the_stack() {
        let hostile = vec![b'['; 1 << 20];
        let decoded: Result<serde_json::Value, _> = Json.decode(&hostile);
        assert!(decoded.is_err());
    }
}
