//! The records of the internal logs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logpond::fuzzing::internal(data));
