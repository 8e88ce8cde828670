//! What would become of a client's request: the stage *accept* for requests that are only asked about.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use omniroute_admin::{
    AskContent, AskField, NotRehearsed, PreviewAnswer, PreviewAsk, Previews, RehearsedAsk, WrongAsk,
};
use omniroute_domain::health::HealthMap;
use omniroute_domain::snapshot::Snapshot;
use omniroute_engine::preview::Preview;
use omniroute_engine::rehearsal::{Rehearsal, RehearsalAsk, RehearsalError};
use omniroute_engine::spool::Spooled;
use omniroute_engine::task::{Asked, Upload};
use omniroute_engine::{Arrival, Engine, RequestCtx};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::form::{self, Form, MAX_BYTES, PicturesForm, RecordingForm};
use super::routes::{self, Found, Operation};

/// Said of paths that lead to no upstream, and of those that are none.
const ELSEWHERE: &str = "is no path at which an upstream is asked: conversations, counts of their tokens, embeddings, pictures, speech, \
     transcripts, answers that are kept";
/// Said of what does not lead to a combo.
const UNPLAYED: &str =
    "is no path of a request that can be played: conversations, embeddings, pictures, speech";

/// The configuration as it is stored, built over this state of accounts and combos.
pub(crate) type Built = Arc<dyn Fn(HealthMap) -> BoxFuture<'static, Result<Snapshot, String>> + Send + Sync>;

/// Answers for the management API.
#[derive(Clone)]
pub(crate) struct Explainer {
    engine: Arc<Engine>,
    built: Built,
    /// One play at a time: it takes a processor for itself.
    stage: Arc<Semaphore>,
}

impl Previews for Explainer {
    fn preview(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<Preview, WrongAsk>> {
        self.explain(ask).boxed()
    }

    fn ask(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<PreviewAnswer, WrongAsk>> {
        self.serve(ask).boxed()
    }

    fn rehearse(&self, ask: RehearsedAsk) -> BoxFuture<'_, Result<(Preview, Rehearsal), NotRehearsed>> {
        self.play(ask).boxed()
    }
}

/// Ends a play when nobody waits for it any more.
struct Audience(Arc<AtomicBool>);

impl Drop for Audience {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A request that is asked about.
struct Question {
    ctx: Box<RequestCtx>,
    operation: Operation,
    content: AskContent,
}

impl Explainer {
    pub(crate) fn new(engine: Arc<Engine>, built: Built) -> Self {
        Self { engine, built, stage: Arc::new(Semaphore::new(1)) }
    }

    /// Plays requests in a copy of what is known, on a thread where nobody waits for a processor.
    async fn play(&self, ask: RehearsedAsk) -> Result<(Preview, Rehearsal), NotRehearsed> {
        let place = self.stage.clone().try_acquire_owned().map_err(|_| NotRehearsed::Busy)?;
        let snapshot = (self.built)(self.engine.live.health.apart()).await.map_err(NotRehearsed::Failed)?;
        let (is_left, own) = (Arc::new(AtomicBool::new(false)), self.clone());
        let _audience = Audience(is_left.clone());
        let runtime = Handle::current();
        let playing = tokio::task::spawn_blocking(move || {
            // Given back when it is over, also where nobody waited for that.
            let _place = place;
            let now = || own.engine.clock.instant();
            let ends_at = now() + ask.lasts;
            let is_over = || is_left.load(Ordering::Relaxed) || now() >= ends_at;
            runtime.block_on(own.played(ask, &Arc::new(snapshot), &is_over))
        });
        playing.await.map_err(|error| NotRehearsed::Failed(error.to_string()))?
    }

    async fn played(
        &self,
        RehearsedAsk { ask, combo, requests, lasts: _ }: RehearsedAsk,
        snapshot: &Arc<Snapshot>,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> Result<(Preview, Rehearsal), NotRehearsed> {
        let of_engine = |error: RehearsalError| match error {
            RehearsalError::Request(error) => NotRehearsed::Wrong(wrong("body", &error.message)),
            RehearsalError::Elsewhere(name) => NotRehearsed::Elsewhere(name),
            RehearsalError::NoCombo => NotRehearsed::NoCombo,
        };
        let begin = || {
            let mut question = self.begin(ask.clone(), false)?;
            question.ctx.snapshot = snapshot.clone();
            match asked(question.operation, question.content)? {
                Asking::Conversation(body) => Ok((question.ctx, (body, None))),
                Asking::Task(body, asked) => Ok((question.ctx, (body, Some(asked)))),
                Asking::Count(_) | Asking::Kept(_) => Err(wrong("path", UNPLAYED)),
            }
        };
        // Before turns are taken: the first request as things are.
        let (ctx, content) = begin().map_err(NotRehearsed::Wrong)?;
        let seed = ask.seed.unwrap_or_default();
        let preview = match content {
            (body, None) => self.engine.preview(ctx, body).await,
            (body, Some(asked)) => self.engine.preview_task(ctx, body, asked).await,
        };
        let preview = preview.map_err(|error| NotRehearsed::Wrong(wrong("body", &error.message)))?;
        let (ctx, content) = begin().map_err(NotRehearsed::Wrong)?;
        let ask = RehearsalAsk { combo, requests, seed };
        let rehearsal = self.engine.rehearse(ctx, content, &ask, is_over).await.map_err(of_engine)?;
        Ok((preview, rehearsal))
    }

    async fn explain(&self, ask: PreviewAsk) -> Result<Preview, WrongAsk> {
        let Question { ctx, operation, content } = self.begin(ask, false)?;
        let field = if matches!(content, AskContent::Form(_)) { "form" } else { "body" };
        let preview = match asked(operation, content)? {
            Asking::Conversation(body) => self.engine.preview(ctx, body).await,
            Asking::Task(body, asked) => self.engine.preview_task(ctx, body, asked).await,
            Asking::Count(body) => self.engine.preview_count(ctx, body).await,
            Asking::Kept(id) => Ok(self.engine.preview_kept(ctx, &id).await),
        };
        preview.map_err(|error| wrong(field, &error.message))
    }

    async fn serve(&self, ask: PreviewAsk) -> Result<PreviewAnswer, WrongAsk> {
        let Question { ctx, operation, content } = self.begin(ask, true)?;
        let (AskContent::Body(body), Operation::Chat) = (content, operation) else {
            return Err(wrong("path", "is no path of a conversation"));
        };
        let (head, answer) = self.engine.serve(ctx, body).await.into_parts();
        let body = match answer.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(wrong("body", error.to_string())),
        };
        Ok(PreviewAnswer { status: head.status.as_u16(), body })
    }

    fn begin(&self, ask: PreviewAsk, is_logged: bool) -> Result<Question, WrongAsk> {
        let PreviewAsk { method, path, headers, content, api_key, seed } = ask;
        let (path, query) =
            path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let path = routes::normal_form(&decoded).into_owned();
        let Found::Route(route) = routes::find(&path, &method) else {
            return Err(wrong("path", ELSEWHERE));
        };
        let mut ctx = self.engine.begin(Arrival {
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            method,
            path: path.into(),
            query: query.map(str::to_owned),
            headers,
            dialect: route.dialect,
            endpoint: route.endpoint,
            provider: route.provider,
            is_logged,
        });
        if let Some(seed) = seed {
            ctx.decide_with(seed);
        }
        if let Some(id) = &api_key {
            let caller = ctx.snapshot.caller_by_id(id).cloned();
            ctx.caller = Some(caller.ok_or_else(|| wrong("apiKeyId", "is no key's id"))?);
        }
        Ok(Question { ctx, operation: route.operation, content })
    }
}

/// What a request asks for, and of what.
enum Asking {
    Conversation(Bytes),
    Task(Bytes, Asked),
    Count(Bytes),
    /// What is kept under this id.
    Kept(String),
}

/// What is asked for.
fn asked(operation: Operation, content: AskContent) -> Result<Asking, WrongAsk> {
    const NO_FORM: &str = "is not what clients send there; give their document as `body`";
    const NO_BODY: &str = "is not what clients send there; give the fields of their form as `form`";
    let task = |body, asked| Ok(Asking::Task(body, asked));
    match (operation, content) {
        (Operation::Chat, AskContent::Body(body)) => Ok(Asking::Conversation(body)),
        (Operation::Count, AskContent::Body(body)) => Ok(Asking::Count(body)),
        (Operation::Embed { form, model }, AskContent::Body(body)) => {
            task(body, Asked::Embeddings { form, model })
        }
        (Operation::Images { edits: false }, AskContent::Body(body)) => task(body, Asked::Images),
        (Operation::Images { edits: true }, AskContent::Body(body)) => task(body, Asked::Edit),
        (Operation::Speech, AskContent::Body(body)) => task(body, Asked::Speech),
        (Operation::Images { edits: true }, AskContent::Form(fields)) => {
            task(Bytes::new(), Asked::EditForm(filled(PicturesForm::default(), fields)?))
        }
        (Operation::Transcribe { translates }, AskContent::Form(fields)) => {
            task(Bytes::new(), Asked::Transcript(filled(RecordingForm::new(translates), fields)?))
        }
        (Operation::Transcribe { .. }, AskContent::Body(_)) => Err(wrong("body", NO_BODY)),
        (Operation::Transcribe { .. }, AskContent::Nothing) => {
            Err(wrong("form", "is required: the fields that clients send there"))
        }
        // Clients may send a body with it, which nobody reads.
        (Operation::Kept { id, .. }, AskContent::Nothing | AskContent::Body(_)) => Ok(Asking::Kept(id)),
        (
            Operation::Chat
            | Operation::Count
            | Operation::Embed { .. }
            | Operation::Images { .. }
            | Operation::Speech
            | Operation::Kept { .. },
            AskContent::Form(_),
        ) => Err(wrong("form", NO_FORM)),
        (
            Operation::Chat
            | Operation::Count
            | Operation::Embed { .. }
            | Operation::Images { .. }
            | Operation::Speech,
            AskContent::Nothing,
        ) => Err(wrong("body", "is required: what clients send there")),
        (Operation::MethodNotAllowed { methods }, _) => {
            Err(wrong("method", format!("is none of the path's, which has {methods}")))
        }
        (
            Operation::Models
            | Operation::ModelsFor(_)
            | Operation::Model { .. }
            | Operation::Show
            | Operation::Loaded
            | Operation::Version
            | Operation::Preflight { .. }
            | Operation::NotFound
            | Operation::Gone { .. },
            _,
        ) => Err(wrong("path", ELSEWHERE)),
    }
}

/// The form with these fields, read as a client's would be.
fn filled<F: Form>(mut form: F, fields: Vec<(String, AskField)>) -> Result<F::Whole, WrongAsk> {
    for (at, (name, field)) in fields.into_iter().enumerate() {
        let here = |message: &str| wrong(format!("form[{at}]"), message);
        let is_file = form.is_file(&name).map_err(|error| here(&error.message))?;
        match field {
            AskField::Text(_) if is_file => {
                return Err(here(&format!(
                    "`{}` is a file: say how many `bytes` it has",
                    form::shown(&name)
                )));
            }
            AskField::File { .. } if !is_file => return Err(here(&form::misplaced::<F>(&name).message)),
            AskField::Text(value) if value.len() > form.room() => {
                return Err(here(&form::too_long(&name).message));
            }
            AskField::Text(value) => form.text(&name, &value).map_err(|error| here(&error.message))?,
            AskField::File { bytes, .. } if form.taken().saturating_add(bytes) > MAX_BYTES => {
                return Err(here(&form::too_large().message));
            }
            AskField::File { filename, content_type, bytes, seconds } => {
                let (file, filename) = (Arc::new(Spooled::of_length(bytes)), form::file_name(&filename));
                form.file(&name, Upload { file, filename, content_type, seconds });
            }
        }
    }
    form.finish().map_err(|error| wrong("form", &error.message))
}

fn wrong(field: impl Into<std::borrow::Cow<'static, str>>, message: impl Into<String>) -> WrongAsk {
    WrongAsk { field: field.into(), message: message.into() }
}
