#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_wire::members::fuzz_members(data));
