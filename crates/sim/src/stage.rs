//! Putting an answer on the wire as the script wants it.

use std::{fmt::Write as _, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    SimBody,
    ask::Ask,
    body::{self, Step},
    dialect::{Answer, Wire},
    frame::{Event, Framer},
    refusal::Refusal,
    script::{Fault, Script},
};

/// The text that stands for the part of a huge answer that is made while it is sent.
pub(crate) const FLOOD_MARK: &str = "<<flood>>";
/// 2025-01-01: answers are the same every time.
const CREATED: u64 = 1_735_689_600;
const FLOOD_FRAME: usize = 16 << 10;
const JSON: &str = "application/json";

/// The ids of one answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids(pub(crate) u64);

impl Ids {
    pub(crate) fn answer(self, prefix: &str) -> String {
        format!("{prefix}sim{:021}", self.0)
    }

    pub(crate) fn call(self, prefix: &str, position: usize) -> String {
        format!("{prefix}sim{:015}{position:06}", self.0)
    }

    pub(crate) fn request(self) -> String {
        format!("req_sim{:021}", self.0)
    }

    pub(crate) fn created(self) -> u64 {
        CREATED
    }
}

/// The head of an answer, with the headers vendors send along.
pub(crate) fn head(
    body: SimBody,
    content_type: &'static str,
    wire: &dyn Wire,
    ids: Ids,
) -> Response<SimBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let request_id = HeaderValue::try_from(ids.request()).unwrap_or(HeaderValue::from_static("req_sim"));
    wire.headers(headers, request_id);
    headers.insert(header::SET_COOKIE, HeaderValue::from_static("sim=1; Path=/"));
    response
}

/// A document that is there at once.
pub(crate) fn document(document: Bytes, wire: &dyn Wire, ids: Ids) -> Response<SimBody> {
    head(body::whole(document), JSON, wire, ids)
}

/// An answer that does not depend on what was asked.
pub(crate) fn canned(script: &Script, wire: &dyn Wire, ask: &Ask, ids: Ids) -> Option<Response<SimBody>> {
    let content_type = if ask.stream { ask.frames.content_type() } else { JSON };
    let mut response = match script.fault? {
        Fault::Html => {
            let page = "<!DOCTYPE html>\n<html><head><title>Just a moment</title></head>\
                        <body><h1>Something stands between you and the model</h1></body></html>\n";
            head(body::whole(Bytes::from_static(page.as_bytes())), "text/html; charset=utf-8", wire, ids)
        }
        Fault::Garbage => {
            let bytes: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            head(body::whole(bytes.into()), content_type, wire, ids)
        }
        Fault::Blank => head(body::whole(Bytes::new()), content_type, wire, ids),
        Fault::ErrorFirstEvent if ask.stream => {
            let mut framer = Framer::new(ask.frames, script);
            let event = wire.event(&broken_inside(script), &ids.request());
            let mut steps = vec![Step::Wait(script.ttft), Step::Send(framer.frame(&event))];
            steps.extend(framer.end().map(Step::Send));
            head(body::scripted(steps, script.writes), content_type, wire, ids)
        }
        Fault::ErrorIn200 | Fault::ErrorFirstEvent => {
            document(wire.document(&broken_inside(script), &ids.request()), wire, ids)
        }
        _ => return None,
    };
    if let Some(status) = script.error.and_then(|status| StatusCode::from_u16(status).ok())
        && matches!(script.fault, Some(Fault::Html | Fault::Garbage | Fault::Blank))
    {
        *response.status_mut() = status;
    }
    Some(response)
}

/// A stream as the script wants it.
pub(crate) fn stream(answer: &Answer<'_>, wire: &dyn Wire) -> Response<SimBody> {
    let script = answer.script;
    let events = wire.events(answer);
    let pieces = events.iter().filter(|event| event.content).count();
    // What is to happen after more pieces than there are happens after the last one.
    let breaks_after = match script.fault {
        Some(Fault::Cut(after) | Fault::End(after) | Fault::Stall(after) | Fault::ErrorAfter(after)) => {
            Some(after.min(pieces))
        }
        _ => None,
    };
    let mut framer = Framer::new(answer.ask.frames, script);
    let mut steps = Vec::with_capacity(events.len() + 3);
    if !script.ttft.is_zero() {
        steps.push(Step::Wait(script.ttft));
    }
    let (mut seen, mut sent) = (0, 0);
    for event in events {
        if breaks_after == Some(seen) && (seen > 0 || event.content) {
            break;
        }
        if event.content {
            if seen > 0 && !script.slow.is_zero() {
                steps.push(Step::Wait(script.slow));
            }
            seen += 1;
        }
        sent += 1;
        steps.extend(match script.fault {
            Some(Fault::Malformed(which)) if event.content && which == seen => {
                let half = event.data.slice(..event.data.len() * 2 / 3);
                vec![Step::Send(framer.frame(&Event { data: half, ..event }))]
            }
            Some(Fault::Huge(size)) if event.content => flood(&mut framer, &event, size),
            _ => vec![Step::Send(framer.frame(&event))],
        });
    }
    match script.fault {
        Some(Fault::Cut(_)) => steps.push(Step::Cut),
        Some(Fault::Stall(_)) => steps.push(Step::Hang),
        Some(Fault::ErrorAfter(_)) => {
            let event = wire.broken(&broken_inside(script), answer, sent);
            steps.push(Step::Send(framer.frame(&event)));
        }
        _ => {}
    }
    steps.extend(framer.end().map(Step::Send));
    head(body::scripted(steps, script.writes), answer.ask.frames.content_type(), wire, answer.ids)
}

/// A whole answer as the script wants it.
pub(crate) fn whole(answer: &Answer<'_>, wire: &dyn Wire) -> Response<SimBody> {
    delivered(wire.whole(answer), answer.script, wire, answer.ids)
}

/// A document, with what goes wrong on its way.
pub(crate) fn delivered(document: Bytes, script: &Script, wire: &dyn Wire, ids: Ids) -> Response<SimBody> {
    let scripted = |steps: Vec<Step>| body::scripted(steps, script.writes);
    let body = match script.fault {
        Some(Fault::ErrorAfter(_)) => body::whole(wire.document(&broken_inside(script), &ids.request())),
        Some(Fault::Huge(size)) => match memchr::memmem::find(&document, FLOOD_MARK.as_bytes()) {
            Some(at) => scripted(vec![
                Step::Send(document.slice(..at)),
                Step::Flood(Bytes::from(vec![b'x'; FLOOD_FRAME]), size),
                Step::Send(document.slice(at + FLOOD_MARK.len()..)),
            ]),
            None => body::whole(document),
        },
        _ => played(document, script),
    };
    head(body, JSON, wire, ids)
}

/// A document that is sent as the script wants it.
pub(crate) fn played(document: Bytes, script: &Script) -> SimBody {
    let half = document.len() / 2;
    let mut steps = match script.fault {
        Some(Fault::Cut(_)) => vec![Step::Send(document.slice(..half)), Step::Cut],
        Some(Fault::Stall(_)) => vec![Step::Send(document.slice(..half)), Step::Hang],
        Some(Fault::Malformed(_) | Fault::End(_)) => vec![Step::Send(document.slice(..half))],
        _ if !script.slow.is_zero() => dripped(&document, script.slow),
        _ => vec![Step::Send(document)],
    };
    if !script.ttft.is_zero() {
        steps.insert(0, Step::Wait(script.ttft));
    } else if script.writes.is_none()
        && let [Step::Send(all)] = &*steps
    {
        return body::whole(all.clone());
    }
    body::scripted(steps, script.writes)
}

/// The refusal that the script wants.
pub(crate) fn scripted_refusal(script: &Script, status: u16) -> Refusal {
    let mut message = format!("the script wants status {status}");
    if let Some(retry) = script.retry {
        // Some vendors say it in the text only.
        let _ = write!(message, ", try again in {}s", retry.as_secs_f64());
    }
    Refusal { retry: script.retry, ..Refusal::status(status, message) }
}

fn broken_inside(script: &Script) -> Refusal {
    scripted_refusal(script, script.error.unwrap_or(500))
}

/// The event again and again, whole each time.
fn flood(framer: &mut Framer, event: &Event, size: u64) -> Vec<Step> {
    // The first may have something in front of it that the others do not have.
    let first = framer.frame(event);
    let unit = framer.frame(event);
    let mut frame = BytesMut::with_capacity(FLOOD_FRAME + unit.len());
    while frame.len() < FLOOD_FRAME {
        frame.extend_from_slice(&unit);
    }
    vec![Step::Send(first), Step::Flood(frame.freeze(), size.next_multiple_of(unit.len() as u64))]
}

fn dripped(document: &Bytes, pause: Duration) -> Vec<Step> {
    let size = document.len().div_ceil(16).max(1);
    let mut steps = Vec::with_capacity(32);
    for start in (0..document.len()).step_by(size) {
        if start > 0 {
            steps.push(Step::Wait(pause));
        }
        steps.push(Step::Send(document.slice(start..document.len().min(start + size))));
    }
    steps
}
