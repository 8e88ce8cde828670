//! Pictures: the client's words to the upstream in as many calls as it takes, the pictures back as they are wanted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Response, StatusCode, Uri};
use omniroute_dialect::DecodeError;
use omniroute_dialect::images::{ImageAnswer, ImageRequest, Quirks, Source, Wanted, gemini, openai};
use omniroute_dialect::ir::{Loss, Usage};
use omniroute_domain::price::Units;
use omniroute_domain::resolve::Target;
use omniroute_provider::media_quirks::{image_quirks, second_image_uri, successor};
use omniroute_provider::{Capability, Failure, FailureKind, Service, ServiceDialect};
use omniroute_wire::splice::Pieces;
use tokio::time::timeout;

use super::{Call, Done, Task, own_failure};
use crate::answer::Answer;
use crate::attempt::Fault;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::media;
use crate::serve::Engine;

/// Longest time for one call.
const PATIENCE: Duration = Duration::from_secs(180);
/// What a picture is held to cost in tokens, for budgets, until it is there.
const HELD_TOKENS: u64 = 1_600;
/// What an address answers with that has moved.
const MOVED: [u16; 4] = [404, 410, 502, 503];

/// A client's request.
struct Images {
    request: ImageRequest,
}

impl Engine {
    /// Serves a request for pictures whose caller is known.
    pub async fn images(self: &Arc<Self>, ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        let request = match ImageRequest::read(&body) {
            Ok(request) => request,
            Err(error) => return self.refuse(ctx, &error.into()),
        };
        let model = request.model.clone();
        Box::pin(self.perform(ctx, body, model, Box::new(Images { request }))).await
    }
}

impl Task for Images {
    fn capability(&self) -> Capability {
        Capability::Images
    }

    fn estimate(&self) -> (Usage, Units) {
        let count = u64::from(self.request.count);
        let usage = Usage {
            input_uncached: Some(self.request.prompt.len().div_ceil(4) as u64),
            output_total: Some(HELD_TOKENS * count),
            ..Usage::default()
        };
        (usage, Units { images: count, ..Units::REQUEST })
    }

    fn fits(&self, _: &RequestCtx, target: &Target, service: &Service) -> Result<(), GatewayError> {
        if service.dialect == ServiceDialect::OpenAi {
            self.request.write(&target.model, &quirks(target))?;
        }
        Ok(())
    }

    fn perform<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.paint(call))
    }
}

impl Images {
    async fn paint(&self, mut call: Call<'_>) -> Result<Done, Fault> {
        let uri = call.uri()?;
        let model = call.target.model.clone();
        let answered = match painted(&mut call, &uri, &self.request, &model, Vec::new()).await {
            Err(Fault::Upstream(failure, status))
                if failure.kind == FailureKind::ModelMissing
                    && call.ctx().snapshot.settings.legacy_model_aliases =>
            {
                match successor(call.target.provider.provider.spec(), &model) {
                    None => Err(Fault::Upstream(failure, status)),
                    Some(next) => {
                        let (request, losses) = self.request.for_successor();
                        call.note_model(next);
                        painted(&mut call, &uri, &request, next, losses).await
                    }
                }
            }
            answered => answered,
        };
        let mut answer = answered?;
        self.as_wanted(&call, &uri, &mut answer).await?;
        let now = u64::try_from(call.ctx().started_ms / 1000).unwrap_or(0);
        let units = units(&answer);
        if self.request.stream {
            let done = Done::json(answer.write_events(now), answer.tokens);
            let content_type = Some(HeaderValue::from_static("text/event-stream; charset=utf-8"));
            return Ok(Done { content_type, units, ..done });
        }
        Ok(Done { units, ..Done::json(answer.write(now), answer.tokens) })
    }

    /// Pictures by their address, or themselves. What has to be fetched for that is held to the rules for addresses that
    /// clients name; only the upstream's own host may be one that they may not.
    async fn as_wanted(&self, call: &Call<'_>, uri: &Uri, answer: &mut ImageAnswer) -> Result<(), Fault> {
        let wanted = if self.request.stream { Wanted::Base64 } else { self.request.wanted };
        for picture in &mut answer.pictures {
            let source = std::mem::replace(&mut picture.source, Source::Url(String::new()));
            picture.source = match wanted {
                Wanted::Any => source,
                Wanted::Url => source.into_url(),
                Wanted::Base64 => match source.unpacked() {
                    Source::Url(url) => {
                        let home = uri.authority().filter(|_| call.connection.allow_private);
                        let found = media::picture(&call.ctx().engine, &url, home).await;
                        let (media_type, data) = found.map_err(|reason| {
                            Failure::protocol(&format!("the picture it made cannot be fetched: {reason}"))
                        })?;
                        Source::Base64 { media_type: Some(media_type), data }
                    }
                    here => here,
                },
            };
        }
        Ok(())
    }
}

/// The pictures of one model, in as many calls as it takes.
async fn painted(
    call: &mut Call<'_>,
    uri: &Uri,
    request: &ImageRequest,
    model: &str,
    mut losses: Vec<Loss>,
) -> Result<ImageAnswer, Fault> {
    let is_gemini = call.service.dialect == ServiceDialect::Gemini;
    let quirks = if is_gemini {
        Quirks { one_at_a_time: true, ..Quirks::default() }
    } else {
        image_quirks(call.target.provider.provider.spec(), model)
    };
    let (body, more) = if is_gemini {
        gemini::write(request)
    } else {
        request.write(model, &quirks).map_err(GatewayError::from)?
    };
    losses.extend(more);
    call.note_losses(losses)?;
    let mut whole = ImageAnswer::default();
    let (calls, _) = request.calls(&quirks);
    for _ in 0..calls {
        let bytes = one(call, uri, &body).await?;
        let (answer, reason) = if is_gemini {
            gemini::read(&bytes).map_err(|error| broken(&error))?
        } else {
            (openai::read(&bytes).map_err(|error| broken(&error))?, None)
        };
        whole.add(answer);
        call.note_used(whole.tokens, units(&whole));
        if whole.pictures.is_empty() {
            return Err(match reason {
                Some(reason) => own_failure(Failure::protocol(&format!("it made no picture: {reason}"))),
                None => Failure::protocol("there is no picture in its answer").into(),
            });
        }
    }
    Ok(whole)
}

/// One call, made again at the second address where the first has moved.
async fn one(call: &mut Call<'_>, uri: &Uri, body: &Bytes) -> Result<Bytes, Fault> {
    match sent(call, uri.clone(), body).await {
        Err(Fault::Upstream(failure, Some(status))) if MOVED.contains(&status.as_u16()) => {
            match second_image_uri(uri) {
                None => Err(Fault::Upstream(failure, Some(status))),
                Some(second) => sent(call, second, body).await,
            }
        }
        answered => answered,
    }
}

async fn sent(call: &mut Call<'_>, uri: Uri, body: &Bytes) -> Result<Bytes, Fault> {
    let body: Pieces = std::iter::once(body.clone()).collect();
    let limit = call.ctx().within(PATIENCE);
    match timeout(limit, call.post(uri, body)).await {
        Ok(answered) => answered,
        Err(_) => {
            let failure = Failure::timeout(&format!("no pictures within {} s", limit.as_secs_f32()));
            Err(Fault::Upstream(Box::new(failure), Some(StatusCode::GATEWAY_TIMEOUT)))
        }
    }
}

fn quirks(target: &Target) -> Quirks {
    image_quirks(target.provider.provider.spec(), &target.model)
}

fn units(answer: &ImageAnswer) -> Units {
    Units { images: answer.pictures.len() as u64, ..Units::REQUEST }
}

/// An answer that is none is the upstream's failure.
fn broken(error: &DecodeError) -> Fault {
    Failure::protocol(&error.message).into()
}
