//! Transcripts: the client's recording to the upstream in its own form, the text back in the client's.

mod assemblyai;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, Uri};
use omniroute_dialect::audio::{Transcript, TranscriptionRequest, container, deepgram, openai, sound, write};
use omniroute_dialect::ir::{ErrorKind, Usage};
use omniroute_dialect::{DecodeError, error_in_success};
use omniroute_domain::price::Units;
use omniroute_domain::resolve::Target;
use omniroute_provider::media_quirks::{transcript_formats, transcription_uri};
use omniroute_provider::{Capability, Failure, Service, ServiceDialect};
use sha2::{Digest as _, Sha256};

use super::{Call, Done, Payload, Performed, Task, Upload};
use crate::answer::Answer;
use crate::attempt::Fault;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::ports::Attachment;
use crate::serve::Engine;
use crate::spool::Spooled;

/// A recording's bytes in a second, where it does not tell its length: for limits and budgets only.
const BYTES_A_SECOND: u64 = 16_000;

/// A token of text, roughly.
const BYTES_A_TOKEN: u64 = 4;
/// Tokens of text of a second of speech: two or three words.
const WRITTEN_A_SECOND: f64 = 4.0;

/// A form that a client sent.
#[derive(Debug)]
pub struct Recording {
    /// Everything but the file.
    pub request: TranscriptionRequest,
    /// The file.
    pub upload: Upload,
}

/// A client's request.
struct Transcription {
    request: TranscriptionRequest,
    file: Arc<Spooled>,
    filename: String,
    media_type: &'static str,
    /// Its length in seconds, where it tells.
    seconds: Option<f64>,
}

impl Engine {
    /// Serves a request for a transcript whose caller is known.
    pub async fn transcribe(
        self: &Arc<Self>,
        ctx: Box<RequestCtx>,
        recording: Recording,
    ) -> Response<Answer> {
        match read(recording) {
            Ok((mark, model, task)) => Box::pin(self.perform(ctx, mark, model, task)).await,
            Err(error) => self.refuse(ctx, &error),
        }
    }
}

/// What tells a recording from others, the model that it names, and what it asks for.
pub(super) fn read(recording: Recording) -> Result<(Bytes, String, Box<dyn Task>), GatewayError> {
    let mark = recording.mark();
    let task = Transcription::of(recording)?;
    Ok((mark, task.request.model.clone(), Box::new(task)))
}

impl Recording {
    /// What tells one request from another.
    fn mark(&self) -> Bytes {
        let mut hash = Sha256::new();
        let fields = self.request.fields();
        let fields = fields.chain([
            ("model", self.request.model.as_str()),
            ("response_format", self.request.format.as_str()),
            ("translates", if self.request.translates { "1" } else { "0" }),
            ("filename", &self.upload.filename),
        ]);
        for text in fields.flat_map(|(name, value)| [name, value]) {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update(self.upload.file.digest());
        Bytes::copy_from_slice(&hash.finalize())
    }
}

impl Transcription {
    fn of(recording: Recording) -> Result<Self, GatewayError> {
        let Recording { request, upload } = recording;
        let Upload { file, filename, content_type, seconds } = upload;
        let refused = |code, message: &str| {
            GatewayError::new(ErrorKind::InvalidRequest, code, message.to_owned()).param("file")
        };
        if file.is_empty() {
            return Err(refused("invalid_value", "`file` has no bytes; send a recording"));
        }
        let media_type = container::media_type(content_type.as_deref(), &filename, file.head());
        let Some(media_type) = media_type else {
            return Err(refused(
                "unsupported_content",
                "`file` is no recording; send mp3, wav, m4a, mp4, flac, ogg, opus, webm or aac",
            ));
        };
        let seconds = seconds.or_else(|| container::duration(file.head(), file.len()));
        let filename = container::with_extension(&filename, media_type);
        Ok(Self { request, file, filename, media_type, seconds })
    }

    /// Its length in seconds, if only roughly.
    fn rough_seconds(&self) -> f64 {
        self.seconds.unwrap_or((self.file.len() / BYTES_A_SECOND) as f64)
    }

    async fn listen(&self, call: Call<'_>) -> Result<Done, Fault> {
        let quote = call.target.quote(&call.ctx().snapshot).cloned();
        let mut done = match call.service.dialect {
            ServiceDialect::Deepgram => self.by_deepgram(call).await?,
            ServiceDialect::AssemblyAi => assemblyai::listen(self, call).await?,
            ServiceDialect::OpenAi
            | ServiceDialect::Gemini
            | ServiceDialect::Ollama
            | ServiceDialect::Bedrock
            | ServiceDialect::Painter(_) => self.by_openai(call).await?,
        };
        // Who sells by tokens and does not tell them is billed what so long a recording usually comes to: by the second, if the
        // vendor says how much that is.
        if !done.usage.is_known()
            && let Some(quote) = quote.filter(|quote| quote.price.hears_by_tokens())
        {
            if !quote.price.hears_by_seconds() {
                let written: usize = done.body.iter().map(Bytes::len).sum();
                done.usage = heard(done.units.millis_in, written as u64 / BYTES_A_TOKEN);
            }
            done.is_estimated = true;
        }
        Ok(done)
    }

    /// Who has the client's own form gets it again, with its own name of the model.
    async fn by_openai(&self, mut call: Call<'_>) -> Result<Done, Fault> {
        let request = &self.request;
        let uri = if request.translates {
            call.uri_ending("/transcriptions", "/translations")?
        } else {
            call.uri()?
        };
        let uri = transcription_uri(uri, &call.target.model);
        let formats = transcript_formats(call.target.provider.provider.spec());
        let format = openai::format_to_ask(request.format, formats);
        let engine = call.ctx().engine.clone();
        let boundary = format!("omniroute-{:016x}{:016x}", engine.random(), engine.random());
        let file = (self.filename.as_str(), self.media_type);
        let form = openai::form(request, &call.target.model, format, file, &boundary);
        let mut headers = call.headers();
        set_content_type(&mut headers, &form.content_type)?;
        let behind = form.behind.into_iter().next().unwrap_or_default();
        let payload = self.payload(form.head, behind);
        let response = call.send(Method::POST, uri, headers, payload).await?;
        let (head, body) = response.into_parts();
        let bytes = call.read(body).await?;
        if format.is_json()
            && let Some(error) = error_in_success(&bytes)
        {
            return Err(call.judge(error, http::StatusCode::BAD_GATEWAY, &head.headers));
        }
        if format != request.format {
            let (transcript, used) = openai::read(&bytes, request).map_err(|error| broken(&error))?;
            return self.written(&transcript, used.tokens);
        }
        let (bytes, used) = openai::relay(&bytes, request, self.seconds).map_err(|error| broken(&error))?;
        Ok(self.done(bytes, used.tokens, used.seconds))
    }

    async fn by_deepgram(&self, mut call: Call<'_>) -> Result<Done, Fault> {
        let (query, losses) = deepgram::query(&self.request, &call.target.model);
        call.note_losses(losses)?;
        let uri = with_query(&call.uri()?, &query)
            .ok_or_else(|| Failure::protocol("the address of the service takes no parameters"))?;
        let mut headers = call.headers();
        set_content_type(&mut headers, self.media_type)?;
        let payload = self.payload(Bytes::new(), Bytes::new());
        let response = call.send(Method::POST, uri, headers, payload).await?;
        let bytes = call.read(response.into_body()).await?;
        let transcript = deepgram::read(&bytes, &self.request).map_err(|error| broken(&error))?;
        self.written(&transcript, Usage::default())
    }

    fn payload(&self, head: Bytes, behind: Bytes) -> Payload {
        let attachment = Some(Box::new(Attachment { files: vec![(self.file.clone(), behind)] }));
        let body = std::iter::once(head).filter(|head| !head.is_empty()).collect();
        Payload { body, attachment }
    }

    /// A transcript in the client's format.
    fn written(&self, transcript: &Transcript, usage: Usage) -> Result<Done, Fault> {
        let mut transcript = std::borrow::Cow::Borrowed(transcript);
        if transcript.duration.is_none() && self.seconds.is_some() {
            transcript.to_mut().duration = self.seconds;
        }
        let bytes = write(&transcript, &self.request).map_err(|_| {
            Failure::protocol("it did not tell when what was said, so there can be no subtitles")
        })?;
        Ok(self.done(bytes, usage, transcript.duration))
    }

    fn done(&self, bytes: Bytes, usage: Usage, seconds: Option<f64>) -> Done {
        let known = seconds.or(self.seconds);
        // Who tells neither tokens nor a length is billed by how long so many bytes usually are.
        let is_estimated = known.is_none() && !usage.is_known();
        let seconds = if is_estimated { Some(self.rough_seconds()) } else { known };
        let units = Units { millis_in: millis(seconds), ..Units::REQUEST };
        let content_type = Some(HeaderValue::from_static(self.request.format.media_type()));
        Done { content_type, units, is_estimated, ..Done::json(bytes, usage) }
    }
}

impl Task for Transcription {
    fn capability(&self) -> Capability {
        Capability::Transcriptions
    }

    fn estimate(&self) -> (Usage, Units) {
        let millis_in = millis(Some(self.rough_seconds()));
        let written = (self.rough_seconds() * WRITTEN_A_SECOND) as u64;
        (heard(millis_in, written), Units { millis_in, ..Units::REQUEST })
    }

    fn fits(&self, _: &RequestCtx, target: &Target, service: &Service) -> Result<(), GatewayError> {
        if self.request.translates && service.dialect != ServiceDialect::OpenAi {
            let message = format!(
                "`{}` writes down what is said and does not translate it; use /v1/audio/transcriptions",
                target.full_name()
            );
            return Err(
                GatewayError::new(ErrorKind::InvalidRequest, "unsupported_operation", message).param("model")
            );
        }
        Ok(())
    }

    fn repeats_by_request_id(&self) -> bool {
        false
    }

    fn perform<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<Performed, Fault>> {
        Box::pin(self.listen(call).map_ok(Performed::from))
    }
}

/// The tokens of so much sound and of its transcript, roughly.
fn heard(millis_in: u64, written: u64) -> Usage {
    let sound = Some((millis_in as f64 / 1_000.0 * sound::HEARD_A_SECOND).round() as u64);
    Usage { input_uncached: sound, audio_input: sound, output_total: Some(written), ..Usage::default() }
}

/// Seconds in milliseconds.
pub(super) fn millis(seconds: Option<f64>) -> u64 {
    // Nothing that was recorded is negative, and a cast of what is too large is the largest.
    seconds.filter(|seconds| *seconds > 0.0).map_or(0, |seconds| (seconds * 1000.0).round() as u64)
}

fn set_content_type(headers: &mut HeaderMap, content_type: &str) -> Result<(), Fault> {
    let value = HeaderValue::from_str(content_type)
        .map_err(|_| Failure::protocol("the recording's type cannot be sent in a header"))?;
    headers.insert(CONTENT_TYPE, value);
    Ok(())
}

fn with_query(uri: &Uri, query: &str) -> Option<Uri> {
    let place = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let joint = if uri.query().is_some() { '&' } else { '?' };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{place}{joint}{query}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// An answer that is none is the upstream's failure.
fn broken(error: &DecodeError) -> Fault {
    Failure::protocol(&error.message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_added_to_those_there_are() {
        for (uri, expected) in [
            ("https://a.example/v1/listen", "https://a.example/v1/listen?model=x"),
            ("https://a.example/v1/listen?tier=y", "https://a.example/v1/listen?tier=y&model=x"),
        ] {
            assert_eq!(with_query(&Uri::from_static(uri), "model=x").unwrap().to_string(), expected);
        }
    }

    #[test]
    fn lengths_in_milliseconds() {
        for (seconds, expected) in [(None, 0), (Some(1.2345), 1235), (Some(-1.0), 0), (Some(f64::NAN), 0)] {
            assert_eq!(millis(seconds), expected, "{seconds:?}");
        }
    }
}
