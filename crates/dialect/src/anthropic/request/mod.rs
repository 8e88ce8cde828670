//! Requests: from a client of this dialect, and for an upstream of it.

mod conversation;
mod decode;
mod encode;
mod media;
mod reasoning;
mod schema;
mod tools;
mod write;

pub(super) use decode::{decode, opaque_as_text};
pub(super) use encode::{encode, json_answer};

/// Any bytes as a request: what can be read can be written, and says the same when it is read again.
#[doc(hidden)]
pub fn fuzz_anthropic_request(data: &[u8]) {
    use bytes::Bytes;

    use crate::Caps;

    let Ok(mut request) = decode(&Bytes::copy_from_slice(data)) else { return };
    let first = encode(&request, &Caps::permissive()).expect("a request of the dialect can be written").body;
    let again = decode(&first).expect("what was written can be read");
    let second = encode(&again, &Caps::permissive()).expect("a request of the dialect can be written").body;
    assert_eq!(first, second);

    request.extras.origin = None;
    let adaptive = Caps { adaptive_thinking: true, mid_conversation_system: true, ..Caps::permissive() };
    for caps in [Caps::permissive(), adaptive] {
        if let Ok(encoded) = encode(&request, &caps) {
            decode(&encoded.body).expect("what was written can be read");
        }
    }
}

#[cfg(test)]
mod tests;
