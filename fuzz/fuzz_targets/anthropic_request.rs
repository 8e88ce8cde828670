#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_dialect::anthropic::fuzz_anthropic_request(data));
