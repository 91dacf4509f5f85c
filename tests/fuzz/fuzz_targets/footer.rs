//! Footers and segment headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logpond::fuzzing::footer(data));
