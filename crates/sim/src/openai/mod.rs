//! Chat Completions, as the vendor's reference describes them (<https://platform.openai.com/docs/api-reference/chat>).

mod answer;
mod error;
mod request;
pub(crate) mod schema;
mod turns;

pub(crate) use self::{request::metadata, turns::image};

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
pub(crate) struct OpenAi;

impl Wire for OpenAi {
    fn key(&self, parts: &Parts) -> Option<String> {
        dialect::bearer(&parts.headers)
    }

    fn model_name(&self, body: &Value) -> Result<String, Refusal> {
        dialect::named_in_body(body, &OpenAi)
    }

    fn read(&self, incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
        request::read(incoming)
    }

    fn whole(&self, answer: &Answer<'_>) -> Bytes {
        answer::whole(answer)
    }

    fn events(&self, answer: &Answer<'_>) -> Vec<Event> {
        answer::events(answer)
    }

    fn headers(&self, headers: &mut HeaderMap, request_id: HeaderValue) {
        headers.insert("x-request-id", request_id);
        headers.insert("openai-organization", HeaderValue::from_static("sim-organization"));
        headers.insert("openai-processing-ms", HeaderValue::from_static("1"));
        headers.insert("x-ratelimit-limit-requests", HeaderValue::from_static("1000"));
        headers.insert("x-ratelimit-remaining-requests", HeaderValue::from_static("999"));
    }

    fn models(&self, names: &[&str], ids: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        let mut list = Object::begin(&mut out);
        list.str("object", "list");
        let mut data = list.array("data");
        for name in names {
            model(data.object(), name, ids);
        }
        data.end();
        list.end();
        out.freeze()
    }

    fn model(&self, name: &str, ids: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        model(Object::begin(&mut out), name, ids);
        out.freeze()
    }
}

fn model(mut object: Object<'_>, name: &str, ids: Ids) {
    object.str("id", name).str("object", "model");
    object.u64("created", ids.created()).str("owned_by", "simulator");
    object.end();
}
