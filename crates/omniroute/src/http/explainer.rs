//! What would become of a client's request: the stage *accept* for requests that are only asked about.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use http_body_util::BodyExt as _;
use omniroute_admin::{AskContent, AskField, PreviewAnswer, PreviewAsk, Previews, WrongAsk};
use omniroute_engine::preview::Preview;
use omniroute_engine::spool::Spooled;
use omniroute_engine::task::{Asked, Upload};
use omniroute_engine::{Arrival, Engine, RequestCtx};

use super::form::{self, Form, MAX_BYTES, PicturesForm, RecordingForm};
use super::routes::{self, Found, Operation};

/// Said of paths that lead to no upstream, and of those that are none.
const ELSEWHERE: &str =
    "is no path at which an upstream is asked: conversations, embeddings, pictures, speech, transcripts";

/// Answers for the management API.
pub(crate) struct Explainer(pub(crate) Arc<Engine>);

impl Previews for Explainer {
    fn preview(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<Preview, WrongAsk>> {
        self.explain(ask).boxed()
    }

    fn ask(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<PreviewAnswer, WrongAsk>> {
        self.serve(ask).boxed()
    }
}

/// A request that is asked about.
struct Question {
    ctx: Box<RequestCtx>,
    operation: Operation,
    content: AskContent,
}

impl Explainer {
    async fn explain(&self, ask: PreviewAsk) -> Result<Preview, WrongAsk> {
        let Question { ctx, operation, content } = self.begin(ask, false)?;
        let field = if matches!(content, AskContent::Form(_)) { "form" } else { "body" };
        let preview = match asked(operation, content)? {
            (body, None) => self.0.preview(ctx, body).await,
            (body, Some(asked)) => self.0.preview_task(ctx, body, asked).await,
        };
        preview.map_err(|error| wrong(field, &error.message))
    }

    async fn serve(&self, ask: PreviewAsk) -> Result<PreviewAnswer, WrongAsk> {
        let Question { ctx, operation, content } = self.begin(ask, true)?;
        let (AskContent::Body(body), Operation::Chat) = (content, operation) else {
            return Err(wrong("path", "is no path of a conversation"));
        };
        let (head, answer) = self.0.serve(ctx, body).await.into_parts();
        let body = match answer.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(wrong("body", error.to_string())),
        };
        Ok(PreviewAnswer { status: head.status.as_u16(), body })
    }

    fn begin(&self, ask: PreviewAsk, is_logged: bool) -> Result<Question, WrongAsk> {
        let PreviewAsk { path, headers, content, api_key, seed } = ask;
        let (path, query) =
            path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let path = routes::normal_form(&decoded).into_owned();
        let Found::Route(route) = routes::find(&path, &Method::POST) else {
            return Err(wrong("path", ELSEWHERE));
        };
        let mut ctx = self.0.begin(Arrival {
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            method: Method::POST,
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

/// The body, and what it asks for where that is not chat.
fn asked(operation: Operation, content: AskContent) -> Result<(Bytes, Option<Asked>), WrongAsk> {
    match (operation, content) {
        (Operation::Chat, AskContent::Body(body)) => Ok((body, None)),
        (Operation::Embed { form, model }, AskContent::Body(body)) => {
            Ok((body, Some(Asked::Embeddings { form, model })))
        }
        (Operation::Images { edits: false }, AskContent::Body(body)) => Ok((body, Some(Asked::Images))),
        (Operation::Images { edits: true }, AskContent::Body(body)) => Ok((body, Some(Asked::Edit))),
        (Operation::Speech, AskContent::Body(body)) => Ok((body, Some(Asked::Speech))),
        (Operation::Images { edits: true }, AskContent::Form(fields)) => {
            let form = filled(PicturesForm::default(), fields)?;
            Ok((Bytes::new(), Some(Asked::EditForm(form))))
        }
        (Operation::Transcribe { translates }, AskContent::Form(fields)) => {
            let recording = filled(RecordingForm::new(translates), fields)?;
            Ok((Bytes::new(), Some(Asked::Transcript(recording))))
        }
        (Operation::Transcribe { .. }, AskContent::Body(_)) => {
            Err(wrong("body", "is not what clients send there; give the fields of their form as `form`"))
        }
        (
            Operation::Chat | Operation::Embed { .. } | Operation::Images { .. } | Operation::Speech,
            AskContent::Form(_),
        ) => Err(wrong("form", "is not what clients send there; give their document as `body`")),
        _ => Err(wrong("path", ELSEWHERE)),
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
