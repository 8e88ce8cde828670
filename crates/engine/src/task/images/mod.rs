//! Pictures: the client's words, and the pictures it gives, to the upstream in as many calls as it takes; the pictures back
//! as they are wanted.

mod given;
mod painter;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use omniroute_dialect::DecodeError;
use omniroute_dialect::images::{
    ImageAnswer, ImageRequest, LivePictures, Painting, Quirks, Source, Wanted, gemini, openai,
};
use omniroute_dialect::ir::{Loss, Usage};
use omniroute_domain::price::Units;
use omniroute_domain::resolve::Target;
use omniroute_provider::media_quirks::{image_quirks, second_image_uri, successor};
use omniroute_provider::{Capability, Failure, FailureKind, Service, ServiceDialect};
use tokio::time::timeout;

pub use self::given::EditForm;
use self::given::Pictures;
use super::{Call, Done, Live, Payload, Performed, Task, own_failure};
use crate::answer::Answer;
use crate::attempt::Fault;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::media;
use crate::ports::UpstreamBody;
use crate::serve::Engine;
use crate::time::seconds;

/// Longest time for one call.
const PATIENCE: Duration = Duration::from_secs(180);
/// What a picture is held to cost in tokens, for budgets, until it is there.
const HELD_TOKENS: u64 = 1_600;
/// What an address answers with that has moved.
const MOVED: [u16; 4] = [404, 410, 502, 503];
/// Where pictures are made, and where they are changed.
const MADE: &str = "/images/generations";
const CHANGED: &str = "/images/edits";

/// A client's request.
struct Images {
    request: ImageRequest,
    /// Those that are to be changed.
    given: Option<Pictures>,
}

impl Engine {
    /// Serves a request for pictures whose caller is known.
    pub async fn images(self: &Arc<Self>, ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        self.paint(ctx, Images::new(&body), body).await
    }

    /// The same for pictures that are to be changed, in a form.
    pub async fn edit_form(self: &Arc<Self>, ctx: Box<RequestCtx>, form: EditForm) -> Response<Answer> {
        let mark = form.mark();
        self.paint(ctx, Images::of_form(form), mark).await
    }

    /// The same, in a JSON document.
    pub async fn edit_named(self: &Arc<Self>, ctx: Box<RequestCtx>, body: Bytes) -> Response<Answer> {
        self.paint(ctx, Images::naming(&body), body).await
    }

    async fn paint(
        self: &Arc<Self>,
        mut ctx: Box<RequestCtx>,
        images: Result<Images, DecodeError>,
        body: Bytes,
    ) -> Response<Answer> {
        ctx.set_body(body.clone());
        let images = match images {
            Ok(images) => images,
            Err(error) => return self.refuse(ctx, &error.into()),
        };
        let model = images.request.model.clone();
        Box::pin(self.perform(ctx, body, model, Box::new(images))).await
    }
}

/// The model that a body names, and what it asks for.
pub(super) fn read(body: &Bytes) -> Result<(String, Box<dyn Task>), GatewayError> {
    Ok(Images::new(body)?.named())
}

/// The same of pictures that are to be changed.
pub(super) fn read_edit(body: &Bytes) -> Result<(String, Box<dyn Task>), GatewayError> {
    Ok(Images::naming(body)?.named())
}

/// The same in a form, with what tells it from others.
pub(super) fn read_form(form: EditForm) -> Result<(Bytes, String, Box<dyn Task>), GatewayError> {
    let mark = form.mark();
    let (model, task) = Images::of_form(form)?.named();
    Ok((mark, model, task))
}

impl Images {
    /// Of words alone.
    fn new(body: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self { request: ImageRequest::read(body)?, given: None })
    }

    /// With pictures that a document names.
    fn naming(body: &Bytes) -> Result<Self, DecodeError> {
        let request = ImageRequest::read(body)?;
        let given = Some(Pictures::named(&request)?);
        Ok(Self { request, given })
    }

    fn of_form(form: EditForm) -> Result<Self, DecodeError> {
        let (request, given) = form.open()?;
        Ok(Self { request, given: Some(given) })
    }

    fn named(self) -> (String, Box<dyn Task>) {
        (self.request.model.clone(), Box::new(self))
    }
}

impl Task for Images {
    fn capability(&self) -> Capability {
        Capability::Images
    }

    fn estimate(&self) -> (Usage, Units) {
        let count = u64::from(self.request.count);
        let given = self.given.as_ref().map_or(0, Pictures::all) as u64;
        let input = self.request.prompt.len().div_ceil(4) as u64 + HELD_TOKENS * given;
        let usage = Usage {
            // Some are asked for one picture at a time, and read everything each time.
            input_uncached: Some(input * count),
            output_total: Some(HELD_TOKENS * count),
            ..Usage::default()
        };
        (usage, Units { images: count, ..Units::REQUEST })
    }

    fn fits(&self, ctx: &RequestCtx, target: &Target, service: &Service) -> Result<(), GatewayError> {
        if let Some(given) = &self.given {
            given.fit(ctx, target, service)?;
        }
        match service.dialect {
            ServiceDialect::OpenAi => drop(self.request.write(&target.model, &quirks(target))?),
            ServiceDialect::Painter(painter) => drop(painter.write(&self.request, &target.model, "-")?),
            _ => {}
        }
        Ok(())
    }

    fn streams(&self) -> bool {
        self.request.stream
    }

    fn perform<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<Performed, Fault>> {
        Box::pin(self.paint(call))
    }
}

/// What calls came to.
enum Painted {
    Whole(ImageAnswer),
    Live(Live),
}

/// One call, as often as it is made.
struct Message {
    headers: HeaderMap,
    payload: Payload,
}

impl Images {
    async fn paint(&self, mut call: Call<'_>) -> Result<Performed, Fault> {
        let uri = match (&self.given, call.service.dialect) {
            (Some(_), _) => call.uri_ending(MADE, CHANGED)?,
            (None, ServiceDialect::Painter(painter)) => painter::uri(&call, painter)?,
            (None, _) => call.uri()?,
        };
        let model = call.target.model.clone();
        let painted = match self.painted(&mut call, &uri, &self.request, &model, Vec::new()).await {
            Err(Fault::Upstream(failure, status))
                if failure.kind == FailureKind::ModelMissing
                    && call.ctx().snapshot.settings.legacy_model_aliases =>
            {
                match successor(call.target.provider.provider.spec(), &model) {
                    None => Err(Fault::Upstream(failure, status)),
                    Some(next) => {
                        let (request, losses) = self.request.for_successor();
                        call.note_model(next);
                        self.painted(&mut call, &uri, &request, next, losses).await
                    }
                }
            }
            painted => painted,
        };
        let mut answer = match painted? {
            Painted::Live(live) => return Ok(Performed::Live(Box::new(live))),
            Painted::Whole(answer) => answer,
        };
        self.as_wanted(&call, &uri, &mut answer).await?;
        let now = u64::try_from(call.ctx().started_ms / 1000).unwrap_or(0);
        let units = units(&answer);
        let body = match self.request.stream {
            true => answer.write_events(self.painting(), now),
            false => answer.write(now),
        };
        Ok(Done { units, ..Done::json(body, answer.tokens) }.into())
    }

    fn painting(&self) -> Painting {
        if self.given.is_some() { Painting::Edit } else { Painting::New }
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

    /// The pictures of one model, in as many calls as it takes.
    async fn painted(
        &self,
        call: &mut Call<'_>,
        uri: &Uri,
        request: &ImageRequest,
        model: &str,
        mut losses: Vec<Loss>,
    ) -> Result<Painted, Fault> {
        let is_gemini = call.service.dialect == ServiceDialect::Gemini;
        let quirks = match call.service.dialect {
            ServiceDialect::Gemini => Quirks { one_at_a_time: true, ..Quirks::default() },
            ServiceDialect::Painter(painter) => painter.quirks(),
            _ => image_quirks(call.target.provider.provider.spec(), model),
        };
        let (message, more) = self.message(call, request, model, &quirks).await?;
        losses.extend(more);
        call.note_losses(losses)?;
        let mut whole = ImageAnswer::default();
        let (calls, _) = request.calls(&quirks);
        for _ in 0..calls {
            if let ServiceDialect::Painter(painter) = call.service.dialect {
                whole.add(painter::painted(call, painter, uri, &message).await?);
                call.note_used(whole.tokens, units(&whole));
                continue;
            }
            let response = one(call, uri, &message).await?;
            if request.is_live(&quirks) && is_stream(response.headers()) {
                let (head, body) = response.into_parts();
                let pipe = Box::new(LivePictures::new(request.count));
                return Ok(Painted::Live(Live { headers: head.headers, body, pipe }));
            }
            let bytes = in_time(call.ctx().within(PATIENCE), call.read_json(response)).await?;
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
        Ok(Painted::Whole(whole))
    }

    /// What is sent, and what of the request it does not say.
    async fn message(
        &self,
        call: &Call<'_>,
        request: &ImageRequest,
        model: &str,
        quirks: &Quirks,
    ) -> Result<(Message, Vec<Loss>), Fault> {
        if let Some(given) = &self.given {
            return given.message(call, request, model, quirks).await;
        }
        let (body, losses) = match call.service.dialect {
            ServiceDialect::Gemini => gemini::write(request, &[], false),
            ServiceDialect::Painter(painter) => return painter::message(call, painter, request, model),
            _ => request.write(model, quirks).map_err(GatewayError::from)?,
        };
        Ok((Message { headers: call.headers(), payload: body.into() }, losses))
    }
}

/// One call, made again at the second address where the first has moved.
async fn one(call: &mut Call<'_>, uri: &Uri, message: &Message) -> Result<Response<UpstreamBody>, Fault> {
    match sent(call, uri.clone(), message).await {
        Err(Fault::Upstream(failure, Some(status))) if MOVED.contains(&status.as_u16()) => {
            match second_image_uri(uri) {
                None => Err(Fault::Upstream(failure, Some(status))),
                Some(second) => sent(call, second, message).await,
            }
        }
        answered => answered,
    }
}

async fn sent(call: &mut Call<'_>, uri: Uri, message: &Message) -> Result<Response<UpstreamBody>, Fault> {
    let (headers, payload) = (message.headers.clone(), message.payload.clone());
    in_time(call.ctx().within(PATIENCE), call.send(Method::POST, uri, headers, payload)).await
}

/// What is done within a time.
async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => {
            let failure = Failure::timeout(&format!("no pictures within {}", seconds(limit)));
            Err(Fault::Upstream(Box::new(failure), Some(StatusCode::GATEWAY_TIMEOUT)))
        }
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value: &HeaderValue| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
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
