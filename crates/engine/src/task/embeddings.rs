//! Embeddings: the client's texts to the upstream in as many calls as it takes, the vectors back in their order.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Response, Uri};
use omniroute_dialect::embeddings::{EmbedAnswer, EmbedCaps, EmbedRequest, Form, read_answer};
use omniroute_dialect::ir::{ErrorKind, Usage};
use omniroute_dialect::{DecodeError, registry};
use omniroute_domain::price::Units;
use omniroute_domain::resolve::Target;
use omniroute_domain::snapshot::Caller;
use omniroute_provider::{Capability, Failure, Service, embed_caps};
use omniroute_wire::splice::Pieces;

use super::{Call, Done, Performed, Task, serve};
use crate::answer::Answer;
use crate::attempt::Fault;
use crate::ctx::{Arrival, RequestCtx};
use crate::error::GatewayError;
use crate::serve::Engine;

/// What internal requests look like in the log.
const PATH: &str = "/v1/embeddings";
/// The name that keys and policies know the operation by.
const ENDPOINT: &str = "embeddings";

/// A client's request.
struct Embeddings {
    request: EmbedRequest,
}

impl Engine {
    /// Serves a request for embeddings whose caller is known.
    pub async fn embeddings(
        self: &Arc<Self>,
        mut ctx: Box<RequestCtx>,
        body: Bytes,
        form: Form,
        model: Option<String>,
    ) -> Response<Answer> {
        ctx.set_body(body.clone());
        let request = match EmbedRequest::read(form, &body) {
            Ok(request) => request,
            Err(error) => return self.refuse(ctx, &error.into()),
        };
        let model = model.unwrap_or_else(|| request.model.clone());
        Box::pin(self.perform(ctx, body, model, Box::new(Embeddings { request }))).await
    }

    /// Vectors for texts that the gateway itself wants to compare on behalf of `asker`.
    pub async fn embed(
        self: &Arc<Self>,
        asker: &RequestCtx,
        model: &str,
        texts: &[String],
    ) -> Result<Vec<Vec<f32>>, GatewayError> {
        self.embed_for(asker.arrival.peer, asker.caller.clone(), model, texts).await
    }

    /// The same on behalf of a client whose request may be over: a request with its own row in the log and its own bill,
    /// within the models and budgets of its key. As the client has not sent it, it does not count against the key's rates.
    pub(crate) async fn embed_for(
        self: &Arc<Self>,
        peer: SocketAddr,
        caller: Option<Arc<Caller>>,
        model: &str,
        texts: &[String],
    ) -> Result<Vec<Vec<f32>>, GatewayError> {
        let request = EmbedRequest::of_texts(model, texts)?;
        let arrival = Arrival {
            peer,
            method: Method::POST,
            path: PATH.into(),
            query: None,
            headers: http::HeaderMap::new(),
            dialect: registry::DIALECTS[0],
            endpoint: ENDPOINT,
            provider: None,
            is_logged: true,
        };
        let mut ctx = self.begin(arrival);
        ctx.caller = caller;
        let count = request.len();
        let result = embedded(&mut ctx, request, model.to_owned(), count).await;
        match &result {
            Ok(_) => ctx.outcome.status = Some(200),
            Err(error) => ctx.note_error(error),
        }
        result
    }
}

async fn embedded(
    ctx: &mut RequestCtx,
    request: EmbedRequest,
    model: String,
    count: usize,
) -> Result<Vec<Vec<f32>>, GatewayError> {
    let body = request.body().clone();
    let route = serve::open(ctx, body, model, Box::new(Embeddings { request }))?;
    // Boxed because whoever asks is a request under way itself.
    let pieces = Box::pin(serve::attempts(ctx, &route)).await?;
    let whole: Bytes = match pieces.as_slice() {
        [only] => only.clone(),
        pieces => pieces.concat().into(),
    };
    let answer = read_answer(Form::OpenAi, &whole, count)?;
    let vectors = answer.vectors.iter().map(|vector| vector.values().map_err(GatewayError::from));
    vectors.collect()
}

/// The model that a body names, and what it asks for.
pub(super) fn read(form: Form, body: &Bytes) -> Result<(String, Box<dyn Task>), GatewayError> {
    let request = EmbedRequest::read(form, body)?;
    Ok((request.model.clone(), Box::new(Embeddings { request })))
}

impl Task for Embeddings {
    fn capability(&self) -> Capability {
        Capability::Embeddings
    }

    fn in_place(&self) -> Option<Bytes> {
        self.request.of_nothing()
    }

    fn estimate(&self) -> (Usage, Units) {
        let tokens = self.request.estimated_tokens(0..self.request.len());
        (Usage { input_uncached: Some(tokens), ..Usage::default() }, Units::REQUEST)
    }

    fn fits(&self, ctx: &RequestCtx, target: &Target, service: &Service) -> Result<(), GatewayError> {
        if !service.dialect.embeds_with(&target.model) {
            let message = format!(
                "`{}` is asked in a form that the gateway does not know; use a model of Amazon (`amazon.titan-embed-text-…`) \
                 or Cohere (`cohere.embed-…`)",
                target.full_name()
            );
            return Err(GatewayError::new(ErrorKind::InvalidRequest, "invalid_model", message).param("model"));
        }
        Ok(self.request.check(self.upstream_form(service, &target.model), &caps(ctx, target))?)
    }

    fn may_mix_models(&self) -> bool {
        false
    }

    fn perform<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<Performed, Fault>> {
        Box::pin(self.embed(call).map_ok(Performed::from))
    }
}

impl Embeddings {
    async fn embed(&self, mut call: Call<'_>) -> Result<Done, Fault> {
        let (request, form) = (&self.request, self.upstream_form(call.service, &call.target.model));
        let caps = caps(call.ctx(), call.target);
        request.check(form, &caps).map_err(GatewayError::from)?;
        let uri = uri(&call, form)?;
        let (mut answers, mut usage, mut is_estimated) = (Vec::new(), Usage::default(), false);
        let mut from = 0;
        while from < request.len() {
            let items = from..request.len().min(from + caps.max_items.max(1));
            let written = request.write(form, items.clone(), &call.target.model, &caps);
            if from == 0 {
                call.note_losses(written.losses)?;
            }
            let mut body = Pieces::new();
            body.push(written.body);
            let bytes = call.post(uri.clone(), body).await?;
            let answer = read_answer(form, &bytes, items.len()).map_err(|error| broken(&error))?;
            let tokens = answer.input_tokens.unwrap_or_else(|| {
                is_estimated = true;
                request.estimated_tokens(items.clone())
            });
            usage.add(&used(tokens));
            call.note_used(usage, Units::REQUEST);
            answers.push(answer);
            from = items.end;
        }
        let body = self.answered(&call, form, &answers, &usage).map_err(|error| broken(&error))?;
        Ok(Done { is_estimated, ..Done::json(body, usage) })
    }

    fn answered(
        &self,
        call: &Call<'_>,
        form: Form,
        answers: &[EmbedAnswer],
        usage: &Usage,
    ) -> Result<Bytes, DecodeError> {
        let asked = call.ctx().envelope.as_ref().map_or("", |envelope| &envelope.model);
        self.request.answer(form, answers, usage.input_total().unwrap_or(0), asked)
    }

    /// How the service is asked.
    fn upstream_form(&self, service: &Service, model: &str) -> Form {
        service.dialect.embeddings(self.request.form, model)
    }
}

fn caps(ctx: &RequestCtx, target: &Target) -> EmbedCaps {
    let known = ctx.snapshot.dimensions_of(&target.provider.id, &target.model);
    embed_caps(target.provider.provider.spec(), &target.model, known)
}

fn uri(call: &Call<'_>, form: Form) -> Result<Uri, GatewayError> {
    match form.path_ending() {
        Some((usual, own)) => call.uri_ending(usual, own),
        None => call.uri(),
    }
}

/// Tokens of texts; nothing is produced.
fn used(tokens: u64) -> Usage {
    Usage { input_uncached: Some(tokens), output_total: Some(0), ..Usage::default() }
}

/// An answer that is none is the upstream's failure.
fn broken(error: &DecodeError) -> Fault {
    Failure::protocol(&error.message).into()
}
