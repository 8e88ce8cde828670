#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| omniroute_dialect::embeddings::fuzz_embeddings(data));
