#![no_main]

use omniroute_dialect::{fuzz, responses};

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stream(&responses::Responses, data));
