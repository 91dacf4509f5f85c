//! Frames that somebody else has sent.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logpond::fuzzing::frame(data));
