//! Responses, as the vendor's reference describes them (<https://platform.openai.com/docs/api-reference/responses>).

mod answer;
mod error;
mod request;
mod stream;
mod turns;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, request::Parts};
use serde_json::Value;

use crate::{
    ask::Ask,
    dialect::{self, Answer, Incoming, Wire},
    frame::Event,
    openai::OpenAi,
    refusal::Refusal,
    stage::Ids,
};

/// The dialect.
pub(crate) struct Responses;

impl Wire for Responses {
    fn key(&self, parts: &Parts) -> Option<String> {
        dialect::bearer(&parts.headers)
    }

    fn model_name(&self, body: &Value) -> Result<String, Refusal> {
        dialect::named_in_body(body, &Responses)
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
        stream::events(answer)
    }

    fn broken(&self, refusal: &Refusal, answer: &Answer<'_>, sent: usize) -> Event {
        stream::failed(refusal, answer, sent)
    }

    fn headers(&self, headers: &mut HeaderMap, request_id: HeaderValue) {
        OpenAi.headers(headers, request_id);
    }

    fn models(&self, names: &[&str], ids: Ids) -> Bytes {
        OpenAi.models(names, ids)
    }

    fn model(&self, name: &str, ids: Ids) -> Bytes {
        OpenAi.model(name, ids)
    }
}
