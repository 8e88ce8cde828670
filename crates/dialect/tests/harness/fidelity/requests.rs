//! What becomes of a request.

use bytes::Bytes;
use http::HeaderMap;
use omniroute_dialect::{
    Dialect, EncodeError, Head,
    ir::{Block, BlockKind, ChatRequest, ChatResponse, File, Image, Loss, MediaSource},
    shape::{Seal, Shape},
};
use serde_json::Value;

use super::{
    facts,
    pattern::{holds, only_in},
    verdict::{Seen, Verdict},
    words::{DATA, Words},
};
use crate::support::{decode, dialect, full_caps};

/// What is sent, and what was lost.
struct Sent {
    body: Value,
    losses: Vec<Loss>,
    shape: Shape,
}

/// Tries one feature between two dialects.
pub(super) fn verdict(client: &Words, upstream: &Words, feature: &str, faults: &mut Vec<String>) -> Verdict {
    let place = format!("request {feature}: {} -> {}", client.dialect, upstream.dialect);
    let Some((before, with)) = client.requests.get(feature).and_then(|word| client.request(word)) else {
        return Verdict::Unsaid;
    };
    let (from, to) = (dialect(&client.dialect), dialect(&upstream.dialect));
    if from.id() == to.id() {
        return within_one(from, &before, &with, feature, &place, faults);
    }
    let (plain, said) =
        (decode(from, &before.to_string()).unwrap(), decode(from, &with.to_string()).unwrap());
    let asked = facts::of_request(feature, &said);
    let stop = said.stop.clone();
    let (plain, mut sent) = match (send(plain, from, to), send(said, from, to)) {
        (Ok(plain), Ok(sent)) => (plain, sent),
        (Ok(_), Err(error)) => {
            if !names_a_member(error.param.as_deref().unwrap_or_default(), &with) {
                faults.push(format!("{place}: {error:?} is not about what the client wrote"));
            }
            return Verdict::Refused;
        }
        // What the feature needs is refused already.
        (Err(_), Err(_)) if before != client.base => return Verdict::Refused,
        (Err(error), _) => panic!("{place}: refused without the feature: {error:?}"),
    };
    let read = |body: &Value| match decode(to, &body.to_string()) {
        Ok(request) => facts::of_request(feature, &request),
        Err(error) => panic!("{place}: the upstream's own reader says {error:?}: {body}"),
    };
    let (found, usual) = (read(&sent.body), read(&plain.body));
    let theirs = upstream.requests.get(feature);
    let own = theirs.is_some_and(|word| holds(&sent.body, &word.own));
    let other = theirs.is_some_and(|word| word.is_said_otherwise(&sent.body, &plain.body));
    if theirs
        .is_some_and(|word| holds(&plain.body, &word.own) || word.is_said_otherwise(&plain.body, &plain.body))
    {
        faults.push(format!("{place}: the body has it without being asked: {}", plain.body));
    }
    // What is left of the client's words although its meaning is not found.
    let said = only_in(&with, &before);
    let left: Vec<String> =
        only_in(&sent.body, &plain.body).into_iter().filter(|leaf| said.contains(leaf)).collect();
    let losses: Vec<&Loss> = sent.losses.iter().filter(|loss| !plain.losses.contains(loss)).collect();
    for loss in losses.iter().filter(|loss| !loss.silent) {
        if !names_a_member(&loss.path, &with) {
            faults.push(format!("{place}: names `{}`, which the client did not write", loss.path));
        }
    }
    let seen = Seen {
        losses: &losses,
        same: if asked.is_some() { asked == found } else { own },
        proven: own || other || cuts(&mut sent.shape, &stop),
        gone: found == usual && !own && left.is_empty(),
    };
    seen.judge().unwrap_or_else(|fault| {
        faults.push(format!(
            "{place}: {fault}; asked {asked:?}, found {found:?}; losses {losses:?}; body {}",
            sent.body
        ));
        Verdict::NoPlace
    })
}

/// Whether a path begins with a member of a body.
fn names_a_member(path: &str, body: &Value) -> bool {
    body.get(path.split(['.', '[']).next().unwrap_or_default()).is_some()
}

/// Within one dialect the bytes are passed on: nothing but the model's name may be another.
fn within_one(
    own: &'static dyn Dialect,
    before: &Value,
    with: &Value,
    feature: &str,
    place: &str,
    faults: &mut Vec<String>,
) -> Verdict {
    let (headers, bytes) = (HeaderMap::new(), Bytes::from(with.to_string()));
    let head = Head { headers: &headers, path: "/v1beta/models/m:generateContent", query: None };
    let envelope = own.envelope(head, &bytes).unwrap();
    let sent: Value = serde_json::from_slice(&own.edit_request(&bytes, &envelope, "up").to_bytes()).unwrap();
    for (name, value) in with.as_object().unwrap() {
        if name != "model" && sent.get(name) != Some(value) {
            faults.push(format!("{place}: `{name}` is another"));
        }
    }
    let fact = |body: &Value| {
        let request = decode(own, &body.to_string()).unwrap_or_else(|error| panic!("{place}: {error:?}"));
        facts::of_request(feature, &request)
    };
    let asked = fact(with);
    if asked.is_some() && asked == fact(before) {
        faults.push(format!("{place}: the probe says nothing: {asked:?}"));
    }
    Verdict::Kept
}

/// What is sent of a request, as the engine does it.
fn send(
    mut request: ChatRequest,
    from: &'static dyn Dialect,
    to: &'static dyn Dialect,
) -> Result<Sent, EncodeError> {
    fetch(&mut request, to);
    request.model = "up".to_owned();
    let (request, shape) = Shape::of(&request, from, to, &full_caps(), Some(&Seal::new([7; 32])));
    let encoded = to.encode_request(&request, &full_caps())?;
    Ok(Sent { body: serde_json::from_slice(&encoded.body).unwrap(), losses: encoded.losses, shape })
}

/// Puts bytes in the place of addresses, where the upstream does not fetch them.
fn fetch(request: &mut ChatRequest, upstream: &dyn Dialect) {
    let blocks = request.turns.iter_mut().flat_map(|turn| turn.blocks.iter_mut());
    for Block { kind, .. } in blocks {
        let (source, media_type, data) = match kind {
            BlockKind::Image(Image { source, .. }) if !upstream.takes_image_urls() => {
                (source, "image/png", DATA[0].1)
            }
            BlockKind::File(File { source, .. }) if !upstream.takes_document_urls() => {
                (source, "application/pdf", DATA[1].1)
            }
            _ => continue,
        };
        if matches!(source, MediaSource::Url(_)) {
            *source = MediaSource::Base64 { media_type: media_type.to_owned(), data: data.to_owned() };
        }
    }
}

/// Whether the gateway itself ends the answer at each of these.
fn cuts(shape: &mut Shape, stop: &[String]) -> bool {
    let Some(sequence) = stop.last() else { return false };
    let mut answer = ChatResponse::default();
    answer.blocks.push(BlockKind::Text(format!("before {sequence} after")).into());
    shape.response(&mut answer);
    answer.stop_sequence.as_ref() == Some(sequence)
        && matches!(&answer.blocks[0].kind, BlockKind::Text(text) if text == "before ")
}
