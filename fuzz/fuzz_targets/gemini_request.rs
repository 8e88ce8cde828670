#![no_main]

use omniroute_dialect::{fuzz, gemini};

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::request(&gemini::Gemini, data));
