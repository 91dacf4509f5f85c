//! Batches, opening batches and their records.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logpond::fuzzing::batch(data));
