//! A partition's directory of hostile files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logpond::fuzzing::recovery(data));
