#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_wire::splice::fuzz_splice(data));
