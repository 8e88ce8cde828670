#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_dialect::gemini::fuzz_gemini_request(data));
