//! Speech: the client's text to the upstream as it is, the sound back as it comes. Where it is sold by tokens or by the
//! second and the upstream does not tell them, the sound itself does, or the text.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response};
use omniroute_dialect::audio::sound;
use omniroute_dialect::audio::speech::{SpeechRequest, told_usage};
use omniroute_dialect::error_in_success;
use omniroute_dialect::ir::Usage;
use omniroute_domain::price::{Price, Units};
use omniroute_provider::{Capability, Failure};

use super::transcription::millis;
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
        ctx.set_body(body.clone());
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
        let millis_out = millis(Some(self.request.usual_seconds));
        (self.usage(millis_out), Units { millis_out, ..self.units() })
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

    /// The tokens of so much sound, roughly.
    fn usage(&self, millis_out: u64) -> Usage {
        let spoken = Some((millis_out as f64 / 1_000.0 * sound::SPOKEN_A_SECOND).round() as u64);
        Usage {
            input_uncached: Some(self.request.text_tokens),
            output_total: spoken,
            audio_output: spoken,
            ..Usage::default()
        }
    }

    /// What is billed for a sound, and whether that is an estimate.
    fn used(&self, price: Option<&Price>, is_stream: bool, bytes: &[u8]) -> (Usage, Units, bool) {
        let told = if is_stream { told_usage(bytes) } else { Usage::default() };
        let Some(price) = price.filter(|price| !told.is_known() && !price.counts_characters()) else {
            return (told, self.units(), false);
        };
        let (by_seconds, by_tokens) = (price.speaks_by_seconds(), price.speaks_by_tokens());
        if !by_seconds && !by_tokens {
            return (told, self.units(), false);
        }
        let measured = if is_stream { None } else { sound::length(self.request.format.as_deref(), bytes) };
        let millis_out = millis(measured.or(Some(self.request.usual_seconds)));
        let units = Units { millis_out, ..self.units() };
        // Whoever sells tokens names a price of seconds as what they usually come to.
        let usage = if by_seconds { told } else { self.usage(millis_out) };
        (usage, units, by_tokens || measured.is_none())
    }

    async fn speak(&self, mut call: Call<'_>) -> Result<Done, Fault> {
        let (uri, headers) = (call.uri()?, call.headers());
        let body = Payload::from(self.request.write(&call.target.model));
        let response = call.send(Method::POST, uri, headers, body).await?;
        let (head, body) = response.into_parts();
        let bytes = call.read(body).await?;
        let content_type = head.headers.get(CONTENT_TYPE).cloned();
        let is_kind = |wanted: &str| {
            let kind = content_type.as_ref().and_then(|kind| kind.to_str().ok());
            kind.is_some_and(|kind| kind.starts_with(wanted))
        };
        if is_kind("application/json")
            && let Some(error) = error_in_success(&bytes)
        {
            return Err(call.judge(error, http::StatusCode::BAD_GATEWAY, &head.headers));
        }
        if bytes.is_empty() {
            return Err(Failure::empty().into());
        }
        let quote = call.target.quote(&call.ctx().snapshot);
        let price = quote.map(|quote| &quote.price);
        let (usage, units, is_estimated) = self.used(price, is_kind("text/event-stream"), &bytes);
        Ok(Done {
            body: std::iter::once(bytes).collect(),
            content_type: content_type.or(Some(HeaderValue::from_static("application/octet-stream"))),
            headers: HeaderMap::new(),
            usage,
            is_estimated,
            units,
        })
    }
}
