//! Speech: the client's text to the upstream as it is, the sound back as it comes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response};
use omniroute_dialect::audio::speech::SpeechRequest;
use omniroute_dialect::error_in_success;
use omniroute_dialect::ir::Usage;
use omniroute_domain::price::Units;
use omniroute_provider::{Capability, Failure};

use super::{Call, Done, Payload, Performed, Task};
use crate::answer::Answer;
use crate::attempt::Fault;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::serve::Engine;

/// A client's request.
struct Speech {
    request: SpeechRequest,
}

impl Engine {
    /// Serves a request for speech whose caller is known.
    pub async fn speech(self: &Arc<Self>, mut ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        ctx.body = body.clone();
        let request = match SpeechRequest::read(&body) {
            Ok(request) => request,
            Err(error) => return self.refuse(ctx, &error.into()),
        };
        let model = request.model.clone();
        Box::pin(self.perform(ctx, body, model, Box::new(Speech { request }))).await
    }
}

/// The model that a body names, and what it asks for.
pub(super) fn read(body: &Bytes) -> Result<(String, Box<dyn Task>), GatewayError> {
    let request = SpeechRequest::read(body)?;
    Ok((request.model.clone(), Box::new(Speech { request })))
}

impl Task for Speech {
    fn capability(&self) -> Capability {
        Capability::Speech
    }

    fn estimate(&self) -> (Usage, Units) {
        (Usage::default(), self.units())
    }

    fn repeats_by_request_id(&self) -> bool {
        false
    }

    fn perform<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<Performed, Fault>> {
        Box::pin(self.speak(call).map_ok(Performed::from))
    }
}

impl Speech {
    fn units(&self) -> Units {
        Units { characters: self.request.characters, ..Units::REQUEST }
    }

    async fn speak(&self, mut call: Call<'_>) -> Result<Done, Fault> {
        let (uri, headers) = (call.uri()?, call.headers());
        let body = Payload::from(self.request.write(&call.target.model));
        let response = call.send(Method::POST, uri, headers, body).await?;
        let (head, body) = response.into_parts();
        let bytes = call.read(body).await?;
        let content_type = head.headers.get(CONTENT_TYPE).cloned();
        let is_json =
            |kind: &HeaderValue| kind.to_str().is_ok_and(|kind| kind.starts_with("application/json"));
        if content_type.as_ref().is_some_and(is_json)
            && let Some(error) = error_in_success(&bytes)
        {
            return Err(call.judge(error, http::StatusCode::BAD_GATEWAY, &head.headers));
        }
        if bytes.is_empty() {
            return Err(Failure::empty().into());
        }
        Ok(Done {
            body: std::iter::once(bytes).collect(),
            content_type: content_type.or(Some(HeaderValue::from_static("application/octet-stream"))),
            headers: HeaderMap::new(),
            usage: Usage::default(),
            is_estimated: false,
            units: self.units(),
        })
    }
}
