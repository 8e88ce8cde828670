//! Putting an answer on the wire as the script wants it.

use std::{fmt::Write as _, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    SimBody, Vendor,
    body::{self, Step},
    refusal::Refusal,
    script::{Fault, Script},
};

/// The text that stands for the part of a huge answer that is made while it is sent.
pub(crate) const FLOOD_MARK: &str = "<<flood>>";
/// 2025-01-01: answers are the same every time.
const CREATED: u64 = 1_735_689_600;
const FLOOD_FRAME: usize = 16 << 10;

/// One event of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) bytes: Bytes,
    /// Whether it carries a piece of the answer; scripts count these.
    pub(crate) content: bool,
}

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
pub(crate) fn head(body: SimBody, content_type: &'static str, vendor: Vendor, ids: Ids) -> Response<SimBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let request_id = HeaderValue::try_from(ids.request()).unwrap_or(HeaderValue::from_static("req_sim"));
    match vendor {
        Vendor::OpenAi => {
            headers.insert("x-request-id", request_id);
            headers.insert("openai-organization", HeaderValue::from_static("sim-organization"));
            headers.insert("openai-processing-ms", HeaderValue::from_static("1"));
            headers.insert("x-ratelimit-limit-requests", HeaderValue::from_static("1000"));
            headers.insert("x-ratelimit-remaining-requests", HeaderValue::from_static("999"));
        }
        Vendor::Anthropic => {
            headers.insert("request-id", request_id);
            headers.insert("anthropic-organization-id", HeaderValue::from_static("sim-organization"));
            headers.insert("anthropic-ratelimit-requests-limit", HeaderValue::from_static("1000"));
            headers.insert("anthropic-ratelimit-requests-remaining", HeaderValue::from_static("999"));
        }
    }
    headers.insert(header::SET_COOKIE, HeaderValue::from_static("sim=1; Path=/"));
    response
}

/// An answer that does not depend on what was asked.
pub(crate) fn canned(script: &Script, vendor: Vendor, stream: bool, ids: Ids) -> Option<Response<SimBody>> {
    let mut response = match script.fault? {
        Fault::Html => {
            let page = "<!DOCTYPE html>\n<html><head><title>Just a moment</title></head>\
                        <body><h1>Something stands between you and the model</h1></body></html>\n";
            head(body::whole(Bytes::from_static(page.as_bytes())), "text/html; charset=utf-8", vendor, ids)
        }
        Fault::Garbage => {
            let bytes: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            head(body::whole(bytes.into()), content_type(stream), vendor, ids)
        }
        Fault::Blank => head(body::whole(Bytes::new()), content_type(stream), vendor, ids),
        Fault::ErrorIn200 => {
            let refusal = broken_inside(script);
            head(body::whole(refusal.document(vendor, &ids.request())), content_type(false), vendor, ids)
        }
        Fault::ErrorFirstEvent if !stream => {
            let refusal = broken_inside(script);
            head(body::whole(refusal.document(vendor, &ids.request())), content_type(false), vendor, ids)
        }
        Fault::ErrorFirstEvent => {
            let event = broken_inside(script).event(vendor, &ids.request());
            head(
                body::scripted([Step::Wait(script.ttft), Step::Send(event)]),
                content_type(true),
                vendor,
                ids,
            )
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
pub(crate) fn stream(script: &Script, events: Vec<Event>, vendor: Vendor, ids: Ids) -> Response<SimBody> {
    let pieces = events.iter().filter(|event| event.content).count();
    // What is to happen after more pieces than there are happens after the last one.
    let fault = match script.fault {
        Some(Fault::Cut(after)) => Some((after.min(pieces), Step::Cut)),
        Some(Fault::Stall(after)) => Some((after.min(pieces), Step::Hang)),
        Some(Fault::ErrorAfter(after)) => {
            let event = broken_inside(script).event(vendor, &ids.request());
            Some((after.min(pieces), Step::Send(event)))
        }
        _ => None,
    };
    let mut steps = Vec::with_capacity(events.len() + 2);
    if !script.ttft.is_zero() {
        steps.push(Step::Wait(script.ttft));
    }
    let mut seen = 0;
    let mut fault_step = fault.as_ref().map(|(_, step)| step.clone());
    for event in events {
        if let Some((after, step)) = &fault
            && *after == seen
            && (seen > 0 || event.content)
        {
            steps.push(step.clone());
            fault_step = None;
            break;
        }
        if event.content {
            if seen > 0 && !script.slow.is_zero() {
                steps.push(Step::Wait(script.slow));
            }
            seen += 1;
            match script.fault {
                Some(Fault::Malformed(which)) if which == seen => {
                    let mut half = BytesMut::from(&event.bytes[..event.bytes.len() * 2 / 3]);
                    half.extend_from_slice(b"\n\n");
                    steps.push(Step::Send(lines(half.freeze(), script.crlf)));
                    continue;
                }
                Some(Fault::Huge(size)) => {
                    let mut frame = BytesMut::with_capacity(FLOOD_FRAME + event.bytes.len());
                    while frame.len() < FLOOD_FRAME {
                        frame.extend_from_slice(&event.bytes);
                    }
                    // Only whole events.
                    let size = size.next_multiple_of(event.bytes.len() as u64);
                    steps.push(Step::Flood(frame.freeze(), size));
                    continue;
                }
                _ => {}
            }
        }
        steps.push(Step::Send(lines(event.bytes, script.crlf)));
    }
    steps.extend(fault_step);
    head(body::scripted(steps), content_type(true), vendor, ids)
}

/// A whole answer as the script wants it.
pub(crate) fn whole(script: &Script, document: Bytes, vendor: Vendor, ids: Ids) -> Response<SimBody> {
    let half = document.len() / 2;
    let body = match script.fault {
        Some(Fault::Cut(_)) => body::scripted([Step::Send(document.slice(..half)), Step::Cut]),
        Some(Fault::Stall(_)) => body::scripted([Step::Send(document.slice(..half)), Step::Hang]),
        Some(Fault::Malformed(_)) => body::whole(document.slice(..half)),
        Some(Fault::ErrorAfter(_)) => body::whole(broken_inside(script).document(vendor, &ids.request())),
        Some(Fault::Huge(size)) => match memchr::memmem::find(&document, FLOOD_MARK.as_bytes()) {
            Some(at) => body::scripted([
                Step::Send(document.slice(..at)),
                Step::Flood(Bytes::from(vec![b'x'; FLOOD_FRAME]), size),
                Step::Send(document.slice(at + FLOOD_MARK.len()..)),
            ]),
            None => body::whole(document),
        },
        _ if !script.slow.is_zero() => dripped(&document, script.slow),
        _ => body::whole(document),
    };
    head(body, content_type(false), vendor, ids)
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

fn content_type(stream: bool) -> &'static str {
    if stream { "text/event-stream; charset=utf-8" } else { "application/json" }
}

fn dripped(document: &Bytes, pause: Duration) -> SimBody {
    let size = document.len().div_ceil(16).max(1);
    let mut steps = Vec::with_capacity(32);
    for start in (0..document.len()).step_by(size) {
        if start > 0 {
            steps.push(Step::Wait(pause));
        }
        steps.push(Step::Send(document.slice(start..document.len().min(start + size))));
    }
    body::scripted(steps)
}

fn lines(event: Bytes, crlf: bool) -> Bytes {
    if !crlf {
        return event;
    }
    let mut out = BytesMut::with_capacity(event.len() + 8);
    for line in event.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(&line[..line.len() - 1]);
        out.extend_from_slice(b"\r\n");
    }
    out.freeze()
}
