//! Requests: from a client of this dialect, and for an upstream of it.

mod contents;
mod conversation;
mod decode;
mod encode;
mod media;
mod native;
mod reasoning;
mod tools;

pub(super) use decode::{decode, decode_count};
pub(super) use encode::encode;

/// Any bytes as a request: what can be read can be written, and says the same when it is read again.
#[doc(hidden)]
pub fn fuzz_gemini_request(data: &[u8]) {
    use bytes::Bytes;
    use http::HeaderMap;

    use crate::{Caps, GeminiCaps, Head};

    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "/v1beta/models/m:generateContent", query: None };
    let Ok(mut request) = decode(head, &Bytes::copy_from_slice(data)) else { return };
    let caps = Caps::permissive();
    let Ok(first) = encode(&request, &caps) else { return };
    let again = decode(head, &first.body).expect("what was written can be read");
    let second = encode(&again, &caps).expect("what was read can be written").body;
    assert_eq!(first.body, second);

    request.extras.origin = None;
    let old = GeminiCaps {
        json_schema: false,
        multimodal_results: false,
        system: false,
        ..GeminiCaps::permissive()
    };
    for gemini in [GeminiCaps::permissive(), old] {
        if let Ok(encoded) = encode(&request, &Caps { gemini, ..Caps::permissive() }) {
            decode(head, &encoded.body).expect("what was written can be read");
        }
    }
}

#[cfg(test)]
mod tests;
