#![no_main]

use omniroute_dialect::{fuzz, ollama};

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stream(&ollama::Ollama, data));
