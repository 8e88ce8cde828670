//! Requests: from a client of this dialect, and for an upstream of it.
//!
//! [`decode`] reads everything but the conversation and the tools, which are up to [`items`] and [`tools`];
//! [`encode`], [`write_tools`] and [`input`] write the three.

mod decode;
mod encode;
mod input;
mod items;
mod tools;
mod write_tools;

pub(super) use decode::decode;
pub(super) use encode::{encode, json_answer};
pub(super) use items::opaque_as_text;
pub(super) use tools::namespaces;

/// Any bytes as a request: what can be read can be written for any target of the dialect, and can be read again.
#[doc(hidden)]
pub fn fuzz_responses_request(data: &[u8]) {
    use bytes::Bytes;
    use http::HeaderMap;

    use crate::{Caps, Head};

    let headers = HeaderMap::new();
    let head = Head { headers: &headers, path: "/v1/responses", query: None };
    let Ok(mut request) = decode(head, &Bytes::copy_from_slice(data)) else { return };
    let known = Caps { custom_tools: true, max_completion_tokens: true, ..Caps::permissive() };
    for origin in [Some(super::ID), Some(crate::openai::ID), None] {
        request.extras.origin = origin;
        for caps in [&Caps::permissive(), &known] {
            if let Ok(encoded) = encode(&request, caps) {
                decode(head, &encoded.body).expect("what was written can be read");
            }
        }
    }
}

#[cfg(test)]
mod tests;
