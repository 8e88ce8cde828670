#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_dialect::ollama::fuzz_ollama_stream(data));
