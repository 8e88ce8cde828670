//! `generateContent`, as the vendor's reference describes it (<https://ai.google.dev/api/generate-content>).

mod answer;
mod error;
mod request;
mod schema;
mod turns;

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, request::Parts};
use omniroute_wire::json_out::Object;
use serde_json::Value;

use crate::{
    ask::Ask,
    check::Wording as _,
    dialect::{self, Answer, Incoming, Wire},
    frame::Event,
    refusal::Refusal,
    route,
    stage::Ids,
};

/// The dialect.
pub(crate) struct Gemini;

impl Wire for Gemini {
    fn key(&self, parts: &Parts) -> Option<String> {
        dialect::header(&parts.headers, "x-goog-api-key")
            .or_else(|| route::query(parts, "key").map(Cow::into_owned))
            .or_else(|| dialect::bearer(&parts.headers))
    }

    fn model_name(&self, _: &Value) -> Result<String, Refusal> {
        // The path names it; there is no other way to get here.
        Err(self.missing("model"))
    }

    fn read(&self, incoming: &Incoming<'_>) -> Result<Ask, Refusal> {
        request::read(incoming)
    }

    fn count(&self, incoming: &Incoming<'_>) -> Result<Bytes, Refusal> {
        Ok(answer::count(&request::counted(incoming)?))
    }

    fn whole(&self, answer: &Answer<'_>) -> Bytes {
        answer::whole(answer)
    }

    fn events(&self, answer: &Answer<'_>) -> Vec<Event> {
        answer::events(answer)
    }

    fn headers(&self, headers: &mut HeaderMap, _: HeaderValue) {
        headers.insert("server-timing", HeaderValue::from_static("gfet4t7; dur=1"));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    }

    fn models(&self, names: &[&str], _: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(2048);
        let mut list = Object::begin(&mut out);
        let mut models = list.array("models");
        for name in names {
            model(models.object(), name);
        }
        models.end();
        list.end();
        out.freeze()
    }

    fn model(&self, name: &str, _: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        model(Object::begin(&mut out), name);
        out.freeze()
    }
}

fn model(mut object: Object<'_>, name: &str) {
    object.str("name", &format!("models/{name}")).str("baseModelId", name).str("version", "001");
    object.str("displayName", name).str("description", "A model of the simulator");
    object.u64("inputTokenLimit", 1_048_576).u64("outputTokenLimit", 65_536);
    let mut methods = object.array("supportedGenerationMethods");
    methods.str("generateContent").str("countTokens");
    methods.end();
    object.u64("temperature", 1).raw("topP", "0.95").u64("topK", 64).u64("maxTemperature", 2);
    object.bool("thinking", true);
    object.end();
}
