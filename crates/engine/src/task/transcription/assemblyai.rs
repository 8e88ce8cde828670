//! A recording that is uploaded, ordered to be written down, and asked for until it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use omniroute_dialect::audio::assemblyai::{self, Naming, Ordered, State};
use omniroute_dialect::ir::Usage;
use omniroute_provider::Failure;
use omniroute_wire::splice::Pieces;
use tokio::time::{Instant, sleep, timeout};

use super::{Call, Done, Payload, Transcription, broken};
use crate::attempt::Fault;
use crate::ports::{Departure, OutboundCall};
use crate::serve::Engine;
use crate::task::own_failure;

/// How often it is asked.
const PAUSE: Duration = Duration::from_secs(2);
/// How long it may take, beside the length of the recording.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it is tried to delete what nobody waits for any more.
const CLEANING: Duration = Duration::from_secs(10);

pub(super) async fn listen(task: &Transcription, mut call: Call<'_>) -> Result<Done, Fault> {
    let upload = call.uri_ending("/transcript", "/upload")?;
    let mut headers = call.headers();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let payload = task.payload(Bytes::new(), Bytes::new());
    let response = call.send(Method::POST, upload, headers, payload).await?;
    let bytes = call.read(response.into_body()).await?;
    let url = assemblyai::upload_url(&bytes).map_err(|error| broken(&error))?;
    let mut ordered = order(task, &mut call, &url).await?;

    let place = call.uri_ending("/transcript", &format!("/transcript/{}", ordered.id))?;
    let mut cleaner = Cleaner::new(&call, place.clone());
    let mut headers = call.headers();
    headers.remove(CONTENT_TYPE);
    let length = ordered.duration.unwrap_or_else(|| task.rough_seconds()).clamp(0.0, 1e6);
    let limit = call.ctx().within(PATIENCE + Duration::from_secs_f64(length));
    let until = Instant::now() + limit;
    loop {
        match ordered.state {
            State::Done(transcript) => {
                cleaner.is_needed = false;
                return task.written(&transcript, Usage::default());
            }
            State::Failed(reason) => {
                cleaner.is_needed = false;
                let said = format!("it could not be written down: {reason}");
                return Err(own_failure(Failure::protocol(&said)));
            }
            State::Working => {}
        }
        if Instant::now() + PAUSE > until {
            let said = format!("the transcript was not there within {} s", limit.as_secs());
            return Err(own_failure(Failure::timeout(&said)));
        }
        sleep(PAUSE).await;
        let response = call.send(Method::GET, place.clone(), headers.clone(), Payload::default()).await?;
        let bytes = call.read(response.into_body()).await?;
        ordered = assemblyai::read(&bytes, &task.request).map_err(|error| broken(&error))?;
    }
}

/// Orders the transcript, in the words of new accounts and, where they are not understood, in those of old ones.
async fn order(task: &Transcription, call: &mut Call<'_>, url: &str) -> Result<Ordered, Fault> {
    let mut first = None;
    for naming in [Naming::List, Naming::One] {
        let (body, losses) = assemblyai::order(&task.request, &call.target.model, url, naming);
        call.note_losses(losses)?;
        let uri = call.uri()?;
        let headers = call.headers();
        match call.send(Method::POST, uri, headers, Payload::from(body)).await {
            Ok(response) => {
                let bytes = call.read(response.into_body()).await?;
                return assemblyai::read(&bytes, &task.request).map_err(|error| broken(&error));
            }
            Err(Fault::Upstream(failure, Some(StatusCode::BAD_REQUEST))) => {
                // What the first was refused for counts, unless it was the name of the member.
                let is_about_naming = failure.upstream.message.contains("speech_model");
                let refused = Fault::Upstream(failure, Some(StatusCode::BAD_REQUEST));
                match first.take() {
                    None => first = Some((refused, is_about_naming)),
                    Some((_, true)) => return Err(refused),
                    Some((earlier, false)) => return Err(earlier),
                }
            }
            Err(fault) => return Err(fault),
        }
    }
    Err(first.map_or_else(|| Failure::empty().into(), |(refused, _)| refused))
}

/// Deletes a transcript that nobody waits for any more: the client went away, or it took too long.
struct Cleaner {
    engine: Arc<Engine>,
    uri: Uri,
    headers: HeaderMap,
    allow_private: bool,
    is_needed: bool,
}

impl Cleaner {
    fn new(call: &Call<'_>, uri: Uri) -> Self {
        let mut headers = call.headers();
        headers.remove(CONTENT_TYPE);
        let allow_private = call.connection.allow_private;
        Self { engine: call.ctx().engine.clone(), uri, headers, allow_private, is_needed: true }
    }
}

impl Drop for Cleaner {
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever would wait is gone; it ends by itself within seconds"
    )]
    fn drop(&mut self) {
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| self.is_needed) else {
            return;
        };
        let engine = self.engine.clone();
        let call = OutboundCall {
            method: Method::DELETE,
            uri: std::mem::take(&mut self.uri),
            headers: std::mem::take(&mut self.headers),
            body: Pieces::new(),
            attachment: None,
            allow_private: self.allow_private,
            departure: Departure::default(),
        };
        drop(runtime.spawn(async move {
            match timeout(CLEANING, engine.transport.send(call)).await {
                Ok(Ok(response)) if response.status().is_success() => {}
                Ok(Ok(response)) => {
                    tracing::debug!(status = response.status().as_u16(), "a transcript was not deleted");
                }
                Ok(Err(error)) => tracing::debug!(%error, "a transcript was not deleted"),
                Err(_) => tracing::debug!("a transcript was not deleted in time"),
            }
        }));
    }
}
