#![no_main]

use omniroute_dialect::{fuzz, openai};

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::request(&openai::OpenAi, data));
