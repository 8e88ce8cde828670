//! Ollama's chat, as its reference describes it (<https://docs.ollama.com/api/chat>).

mod answer;
mod error;
mod request;
mod turns;

pub(crate) use request::known;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, request::Parts};
use omniroute_wire::json_out::Object;
use serde_json::Value;

use crate::{
    ask::Ask,
    dialect::{self, Answer, Incoming, Wire},
    frame::{Event, Frames},
    refusal::Refusal,
    stage::Ids,
};

/// What `/api/version` says.
const VERSION: &str = "0.12.6";

/// The dialect.
pub(crate) struct Ollama;

impl Wire for Ollama {
    fn key(&self, parts: &Parts) -> Option<String> {
        dialect::bearer(&parts.headers)
    }

    fn open(&self) -> bool {
        true
    }

    fn typed(&self) -> bool {
        false
    }

    fn frames(&self) -> Frames {
        Frames::Lines
    }

    fn streams_unasked(&self) -> bool {
        true
    }

    fn model_name(&self, body: &Value) -> Result<String, Refusal> {
        request::model_name(body)
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

    fn headers(&self, _: &mut HeaderMap, _: HeaderValue) {}

    fn models(&self, names: &[&str], _: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(2048);
        let mut list = Object::begin(&mut out);
        let mut models = list.array("models");
        for name in names {
            let mut model = models.object();
            let tagged = format!("{name}:latest");
            model.str("name", &tagged).str("model", &tagged).str("modified_at", answer::CREATED_AT);
            model.u64("size", 0).str("digest", &format!("{:064x}", name.len()));
            details(&mut model);
            model.end();
        }
        models.end();
        list.end();
        out.freeze()
    }

    fn model(&self, _: &str, _: Ids) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        let mut model = Object::begin(&mut out);
        model.str("modelfile", "").str("parameters", "").str("template", "").str("license", "");
        details(&mut model);
        let mut info = model.object("model_info");
        info.str("general.architecture", "simulator").u64("simulator.context_length", 131_072);
        info.end();
        let mut capabilities = model.array("capabilities");
        capabilities.str("completion").str("tools").str("vision").str("thinking");
        capabilities.end();
        model.str("modified_at", answer::CREATED_AT);
        model.end();
        out.freeze()
    }

    fn version(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        let mut version = Object::begin(&mut out);
        version.str("version", VERSION);
        version.end();
        out.freeze()
    }
}

fn details(model: &mut Object<'_>) {
    let mut details = model.object("details");
    details.str("parent_model", "").str("format", "simulator").str("family", "simulator");
    let mut families = details.array("families");
    families.str("simulator");
    families.end();
    details.str("parameter_size", "1B").str("quantization_level", "F16");
    details.end();
}
