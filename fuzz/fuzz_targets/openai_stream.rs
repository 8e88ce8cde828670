#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_dialect::openai::fuzz_openai_stream(data));
