#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_dialect::responses::fuzz_responses_request(data));
