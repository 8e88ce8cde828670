//! Asks an upstream whether a credential works: by its list of models, which costs nothing, else by a chat of one token; an
//! account that is not there for chat by what its vendor has beside it, or by the vector of a word.

mod diagnosis;
mod model_list;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use omniroute_dialect::ir::{BlockKind, ChatRequest, Role, Turn, UpstreamError};
use omniroute_dialect::{DialectId, registry};
use omniroute_engine::ports::{Departure, OutboundCall, TransportError};
use omniroute_provider::scrub::without_credentials;
use omniroute_provider::sounding::{Sounding, sounding};
use omniroute_provider::{Endpoint, Failure, FailureKind, Provider, Service, caps::caps_of};
use omniroute_wire::splice::Splice;

use crate::state::Admin;

pub(crate) use diagnosis::{Diagnosis, DiagnosisSource, DiagnosisType};
pub(crate) use model_list::{UpstreamModel, parse_models};

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;
/// Limit for a list of models.
const LIST_LIMIT: Duration = Duration::from_secs(10);
/// Limit for a chat of one token; small machines take their time to load a model.
const CHAT_LIMIT: Duration = Duration::from_secs(15);

/// What is asked.
pub(crate) struct Subject<'a> {
    pub(crate) provider: &'a dyn Provider,
    pub(crate) endpoints: &'a [Endpoint],
    /// What it does beside chat.
    pub(crate) services: &'a [Service],
    pub(crate) allow_private: bool,
}

impl Subject<'_> {
    fn is_without_chat(&self) -> bool {
        self.endpoints.is_empty() && !self.services.is_empty()
    }
}

/// How an upstream was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeMethod {
    Models,
    Chat,
    /// Something else that is cheap.
    Sounding,
}

impl ProbeMethod {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Models => "models_endpoint",
            Self::Chat => "chat_probe",
            Self::Sounding => "service_probe",
        }
    }
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Verdict {
    /// How it was found out; `None` when nothing was asked.
    pub(crate) method: Option<ProbeMethod>,
    /// The upstream's status, if there was an answer.
    pub(crate) status: Option<u16>,
    /// How long the answer took.
    pub(crate) latency_ms: i64,
    /// How many models were listed.
    pub(crate) models: Option<usize>,
    /// What a model said.
    pub(crate) text: Option<String>,
    /// What went wrong.
    pub(crate) failure: Option<Failure>,
    /// What there is to say when nothing could be asked.
    pub(crate) unsupported: Option<String>,
}

/// The answer to a request for a list of models.
pub(crate) struct Listing {
    pub(crate) body: Bytes,
    pub(crate) models: Vec<UpstreamModel>,
}

impl Verdict {
    /// Whether the credential works. An upstream that has no room at the moment knows it.
    pub(crate) fn is_valid(&self) -> bool {
        self.unsupported.is_none() && (self.failure.is_none() || self.status == Some(429))
    }

    /// Whether the list of models says nothing about the credential, because there is none.
    fn is_no_list(&self) -> bool {
        let no_list = |failure: &Failure| {
            matches!(
                failure.kind,
                FailureKind::ModelMissing | FailureKind::BadRequest | FailureKind::Protocol
            )
        };
        self.failure.as_ref().is_some_and(no_list) || matches!(self.status, Some(404 | 405 | 501))
    }
}

/// Asks for the list of models, and for a chat where that says nothing.
pub(crate) async fn probe(admin: &Admin, subject: &Subject<'_>, model: Option<&str>) -> Verdict {
    if subject.is_without_chat() {
        return probe_service(admin, subject, None).await;
    }
    let listed = match subject.endpoints.iter().find(|endpoint| endpoint.models.is_some()) {
        Some(endpoint) => Some(list(admin, subject, endpoint).await.0),
        None => None,
    };
    match (listed, model) {
        (Some(listed), _) if !listed.is_no_list() => listed,
        (_, Some(model)) => probe_chat(admin, subject, model).await,
        (Some(listed), None) => listed,
        (None, None) => Verdict {
            unsupported: Some("the provider lists no models and no model is known; send `model`".to_owned()),
            ..Verdict::default()
        },
    }
}

/// Asks an account that is not there for chat.
async fn probe_service(admin: &Admin, subject: &Subject<'_>, model: Option<&str>) -> Verdict {
    let mut verdict = Verdict { method: Some(ProbeMethod::Sounding), ..Verdict::default() };
    match sounding(subject.provider.spec(), subject.services, model) {
        Err(reason) => verdict.unsupported = Some(reason),
        Ok((service, Sounding { method, uri, body })) => {
            let place = Place::of_service(service);
            let call = Call { method, uri, body: body.into(), limit: CHAT_LIMIT };
            let answer = send(admin, subject, &place, call).await;
            answer.note(&mut verdict);
            verdict.failure = judge(admin, subject, &place, answer).err().map(|failure| *failure);
        }
    }
    verdict
}

/// What is asked of a model.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) text: &'a str,
    /// Most tokens of answer.
    pub(crate) max_tokens: u64,
}

/// Asks for a chat of one token, or what there is in its place at an account that is not there for chat.
pub(crate) async fn probe_chat(admin: &Admin, subject: &Subject<'_>, model: &str) -> Verdict {
    ask_chat(admin, subject, model, Question { text: "ping", max_tokens: 1 }).await
}

/// The same with another question.
pub(crate) async fn ask_chat(
    admin: &Admin,
    subject: &Subject<'_>,
    model: &str,
    question: Question<'_>,
) -> Verdict {
    if subject.is_without_chat() {
        return probe_service(admin, subject, Some(model)).await;
    }
    let mut verdict = Verdict { method: Some(ProbeMethod::Chat), ..Verdict::default() };
    // As clients' requests do: some models are served in one dialect only.
    let state = admin.live.load().provider(&subject.provider.spec().id).cloned();
    let only = state.and_then(|provider| provider.only_dialect(model)).and_then(registry::by_name);
    let serves = |endpoint: &&Endpoint| only.is_none_or(|only| only.id() == endpoint.dialect);
    let Some(endpoint) = subject.endpoints.iter().find(serves) else {
        verdict.unsupported = Some(match only.filter(|_| !subject.endpoints.is_empty()) {
            Some(only) => {
                let dialect = only.id().as_str();
                format!(
                    "`{model}` is served in the dialect `{dialect}` only, and the connection has no endpoint for it"
                )
            }
            None => "the connection has no endpoint".to_owned(),
        });
        return verdict;
    };
    match chat_call(admin, subject, endpoint, model, question) {
        Ok(call) => {
            let place = Place::of(endpoint);
            let answer = send(admin, subject, &place, call).await;
            answer.note(&mut verdict);
            match judge(admin, subject, &place, answer) {
                Ok(body) => verdict.text = said(endpoint.dialect, &body),
                Err(failure) => verdict.failure = Some(*failure),
            }
        }
        Err(message) => verdict.unsupported = Some(message),
    }
    verdict
}

/// Asks for the list of models; `None` where there is no such operation.
pub(crate) async fn list_models(admin: &Admin, subject: &Subject<'_>) -> Option<Result<Listing, Failure>> {
    let endpoint = subject.endpoints.iter().find(|endpoint| endpoint.models.is_some())?;
    let (verdict, listing) = list(admin, subject, endpoint).await;
    let unread =
        || verdict.failure.unwrap_or_else(|| Failure::protocol("the list of models could not be read"));
    Some(listing.ok_or_else(unread))
}

async fn list(admin: &Admin, subject: &Subject<'_>, endpoint: &Endpoint) -> (Verdict, Option<Listing>) {
    let mut verdict = Verdict { method: Some(ProbeMethod::Models), ..Verdict::default() };
    let Some(uri) = endpoint.models.clone() else {
        verdict.failure = Some(Failure::protocol("there is no list of models"));
        return (verdict, None);
    };
    let call = Call { method: Method::GET, uri, body: Bytes::new(), limit: LIST_LIMIT };
    let place = Place::of(endpoint);
    let answer = send(admin, subject, &place, call).await;
    answer.note(&mut verdict);
    match judge(admin, subject, &place, answer) {
        Err(failure) => verdict.failure = Some(*failure),
        Ok(body) => match parse_models(&body) {
            Some(models) => {
                verdict.models = Some(models.len());
                return (verdict, Some(Listing { body, models }));
            }
            None => verdict.failure = Some(Failure::protocol("the answer is not a list of models")),
        },
    }
    (verdict, None)
}

/// The text of an answer, without its reasoning.
fn said(dialect: DialectId, body: &Bytes) -> Option<String> {
    let answer = registry::by_id(dialect).decode_response(body).ok()?;
    let texts = answer.blocks.into_iter().filter_map(|block| match block.kind {
        BlockKind::Text(text) => Some(text),
        _ => None,
    });
    Some(texts.collect::<Vec<_>>().join("\n"))
}

fn chat_call(
    admin: &Admin,
    subject: &Subject<'_>,
    endpoint: &Endpoint,
    model: &str,
    question: Question<'_>,
) -> Result<Call, String> {
    let spec = subject.provider.spec();
    let request = ChatRequest {
        model: model.to_owned(),
        turns: vec![Turn {
            role: Role::User,
            blocks: vec![BlockKind::Text(question.text.to_owned()).into()],
            name: None,
            path: "messages[0]".to_owned(),
        }],
        max_output_tokens: Some(question.max_tokens),
        ..ChatRequest::default()
    };
    let caps = caps_of(spec, model, admin.catalog.model(&spec.id, model));
    let encoded = registry::by_id(endpoint.dialect).encode_request(&request, &caps);
    let body = encoded.map_err(|error| error.to_string())?.body;
    let uri = endpoint.chat_uri(model, false).map_err(|error| error.to_string())?;
    Ok(Call { method: Method::POST, uri, body, limit: CHAT_LIMIT })
}

struct Call {
    method: Method,
    uri: Uri,
    body: Bytes,
    limit: Duration,
}

struct Answer {
    outcome: Result<(StatusCode, HeaderMap, Bytes), Failure>,
    latency_ms: i64,
}

impl Answer {
    fn note(&self, verdict: &mut Verdict) {
        verdict.status = self.outcome.as_ref().ok().map(|(status, ..)| status.as_u16());
        verdict.latency_ms = self.latency_ms;
    }
}

/// Who answers: with which headers it is asked, and how its errors are read.
struct Place<'a> {
    dialect: DialectId,
    headers: &'a HeaderMap,
}

impl<'a> Place<'a> {
    fn of(endpoint: &'a Endpoint) -> Self {
        Self { dialect: endpoint.dialect, headers: &endpoint.headers }
    }

    fn of_service(service: &'a Service) -> Self {
        Self { dialect: dialect_of(service), headers: &service.headers }
    }
}

/// The dialect that errors of a service are read as, and that it has in the log. Errors are read alike in all of them.
pub(crate) fn dialect_of(service: &Service) -> DialectId {
    service.dialect.chat_dialect().unwrap_or(registry::DIALECTS[0].id())
}

async fn send(admin: &Admin, subject: &Subject<'_>, place: &Place<'_>, call: Call) -> Answer {
    let started = admin.clock.instant();
    let mut headers = place.headers.clone();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if !call.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let outbound = OutboundCall {
        method: call.method,
        uri: call.uri,
        headers,
        body: Splice::new(call.body).into_pieces(),
        attachment: None,
        allow_private: subject.allow_private,
        departure: Departure::default(),
    };
    let exchange = async {
        let response = admin.transport.send(outbound).await.map_err(|error| failure_of(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body =
            body.map_err(|_| Failure::protocol("the answer broke off, or has more than a megabyte"))?;
        Ok((parts.status, parts.headers, body.to_bytes()))
    };
    let outcome = match tokio::time::timeout(call.limit, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::timeout(&format!("no answer within {} s", call.limit.as_secs()))),
    };
    let took = admin.clock.instant().duration_since(started);
    Answer { outcome, latency_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX) }
}

fn judge(
    admin: &Admin,
    subject: &Subject<'_>,
    place: &Place<'_>,
    answer: Answer,
) -> Result<Bytes, Box<Failure>> {
    let (status, headers, body) = answer.outcome?;
    if status.is_success() {
        return Ok(body);
    }
    let mut error: UpstreamError = registry::by_id(place.dialect).decode_error(status, &body);
    error.message = without_credentials(error.message, place.headers);
    error.code = error.code.map(|code| without_credentials(code, place.headers));
    Err(Box::new(subject.provider.classify(error, status, &headers, admin.now_ms())))
}

fn failure_of(error: &TransportError) -> Failure {
    match error {
        TransportError::AddressBlocked(blocked) => Failure::address_blocked(blocked),
        TransportError::ConnectTimeout { .. } => Failure::timeout(&error.to_string()),
        TransportError::Connect { .. } | TransportError::Broken { .. } => {
            Failure::connect(&error.to_string())
        }
    }
}
