#![no_main]

use omniroute_dialect::{anthropic, fuzz};

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::answer(&anthropic::Anthropic, data));
