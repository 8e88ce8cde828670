//! Messages, as the vendor's reference describes them (<https://docs.anthropic.com/en/api/messages>).

mod answer;
mod error;
mod request;
mod turns;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, request::Parts};
use omniroute_wire::json_out::Object;
use serde_json::Value;

use crate::{
    ask::Ask,
    dialect::{self, Answer, Incoming, Wire},
    frame::Event,
    refusal::Refusal,
    stage::Ids,
};

/// The dialect.
pub(crate) struct Anthropic;

impl Wire for Anthropic {
    fn key(&self, parts: &Parts) -> Option<String> {
        dialect::header(&parts.headers, "x-api-key").or_else(|| dialect::bearer(&parts.headers))
    }

    fn model_name(&self, body: &Value) -> Result<String, Refusal> {
        dialect::named_in_body(body, &Anthropic)
    }

    fn read(&self, incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
        request::read(incoming, false)
    }

    fn count(&self, incoming: &Incoming<'_>) -> Result<Bytes, Refusal> {
        Ok(answer::count(&request::read(incoming, true)?))
    }

    fn whole(&self, answer: &Answer<'_>) -> Bytes {
        answer::whole(answer)
    }

    fn events(&self, answer: &Answer<'_>) -> Vec<Event> {
        answer::events(answer)
    }

    fn headers(&self, headers: &mut HeaderMap, request_id: HeaderValue) {
        headers.insert("request-id", request_id);
        headers.insert("anthropic-organization-id", HeaderValue::from_static("sim-organization"));
        headers.insert("anthropic-ratelimit-requests-limit", HeaderValue::from_static("1000"));
        headers.insert("anthropic-ratelimit-requests-remaining", HeaderValue::from_static("999"));
    }

    fn models(&self, names: &[&str], _: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        let mut list = Object::begin(&mut out);
        let mut data = list.array("data");
        for name in names {
            model(data.object(), name);
        }
        data.end();
        list.bool("has_more", false)
            .opt_str("first_id", names.first().copied())
            .opt_str("last_id", names.last().copied());
        list.end();
        out.freeze()
    }

    fn model(&self, name: &str, _: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        model(Object::begin(&mut out), name);
        out.freeze()
    }
}

fn model(mut object: Object<'_>, name: &str) {
    object.str("type", "model").str("id", name).str("display_name", name);
    object.str("created_at", "2025-01-01T00:00:00Z");
    object.end();
}
