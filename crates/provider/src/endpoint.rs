//! Building the endpoints of a connection: URLs with their variables filled, headers with the credential.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use omniroute_dialect::DialectId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    ProviderSpec,
    capability::Capability,
    dialects::{self, ANTHROPIC, GEMINI, OLLAMA, OPENAI_RESPONSES},
    provider::{ConnectionInput, Endpoint, EndpointError},
    service::{self, Address, Service, ServiceDialect},
    spec::{Auth, AuthKind},
};

pub(crate) mod quota;

/// What is sent where the spec does not name a version.
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Headers that belong to the connection's framing, not to the operator.
const NOT_SETTABLE: &[&str] =
    &["connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"];
/// Kept as they are in a path; everything else of a model's name is percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@')
    .remove(b':')
    .remove(b',');
const SEGMENTS: &AsciiSet = &SEGMENT.remove(b'/');
/// Dialects whose paths take the slashes of a model's name as they are.
const SLASHES_IN_MODEL: &[&str] = &["fal", "replicate"];

/// One dialect of a provider, before it is known whether the gateway speaks it.
struct Candidate<'a> {
    dialect: &'a str,
    base_url: Cow<'a, str>,
    chat: &'a str,
    chat_stream: Option<&'a str>,
    auto: bool,
    primary: bool,
}

impl Endpoint {
    /// The URL of the chat operation for a model.
    pub fn chat_uri(&self, model: &str, stream: bool) -> Result<Uri, EndpointError> {
        if let Some((whole, streaming)) = &self.template {
            return uri(&expand(if stream { streaming } else { whole }, model));
        }
        let streaming = if stream { self.chat_stream.as_ref() } else { None };
        streaming.or(self.chat.as_ref()).cloned().ok_or_else(|| {
            EndpointError::Unsupported(format!(
                "this endpoint has no chat operation in dialect `{}`",
                self.dialect
            ))
        })
    }
}

/// Of a connection's endpoints (as [`crate::Provider::endpoints`] returns them) the one for a client's dialect: the
/// one that needs no translation, else the provider's preferred one. `None` only for an empty list.
pub fn choose(endpoints: &[Endpoint], client: DialectId) -> Option<&Endpoint> {
    endpoints.iter().find(|endpoint| endpoint.dialect == client).or(endpoints.first())
}

/// A base URL as people paste it, without trailing slashes and chat paths.
pub fn trim_base_url(url: &str) -> &str {
    let mut url = url.trim().trim_end_matches('/');
    for path in ["/chat/completions", "/responses", "/messages"] {
        url = url.strip_suffix(path).unwrap_or(url).trim_end_matches('/');
    }
    url
}

/// Builds every endpoint of a connection; the default of [`crate::Provider::endpoints`].
pub(crate) fn build(
    spec: &ProviderSpec,
    input: &ConnectionInput<'_>,
) -> Result<Vec<Endpoint>, EndpointError> {
    let key = credential(spec, input)?;
    let base_url = base_url(spec, input.base_url)?;
    let vars = Vars { spec, input };
    vars.check(input.base_url.is_some())?;

    let candidates = wanted(spec, input, &base_url)?;
    let models = match models_url(spec, &base_url) {
        Some(url) => Some(uri(&vars.fill(&url)?)?),
        None => None,
    };
    let mut endpoints = Vec::new();
    let mut unspoken = Vec::new();
    for candidate in candidates {
        let Some(dialect) = dialects::spoken(candidate.dialect) else {
            unspoken.push(candidate.dialect);
            continue;
        };
        let chat = vars.fill(&join(spec, &base_url, &candidate.base_url, candidate.chat)?)?;
        let stream = match candidate.chat_stream {
            Some(path) => Some(vars.fill(&join(spec, &base_url, &candidate.base_url, path)?)?),
            None => None,
        };
        let mut endpoint = Endpoint {
            dialect: dialect.id(),
            chat: None,
            chat_stream: None,
            template: None,
            models: models.clone(),
            headers: headers(spec, &candidate, key, &vars)?,
        };
        if chat.contains("{model}") {
            let (mut whole, mut streaming) = (chat.clone(), stream.unwrap_or(chat));
            if SLASHES_IN_MODEL.contains(&candidate.dialect) {
                whole = whole.replace("{model}", "{+model}");
                streaming = streaming.replace("{model}", "{+model}");
            }
            uri(&expand(&whole, "m"))?;
            uri(&expand(&streaming, "m"))?;
            endpoint.template = Some((whole, streaming));
        } else {
            endpoint.chat = Some(uri(&chat)?);
            endpoint.chat_stream = stream.as_deref().map(uri).transpose()?;
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() { Err(not_spoken(spec, &unspoken)) } else { Ok(endpoints) }
}

/// Builds the services of a connection; the default of [`crate::Provider::services`].
pub(crate) fn services(
    spec: &ProviderSpec,
    input: &ConnectionInput<'_>,
) -> Result<Vec<Service>, EndpointError> {
    let places = Capability::ALL.into_iter().filter_map(|capability| {
        let name = capability.as_str();
        let named = spec.paths.get(name).map(String::as_str);
        let is_offered = spec.capabilities.iter().any(|offered| offered == name);
        let (path, dialect) = service::place(capability, &spec.dialect, named).filter(|_| is_offered)?;
        Some((capability, dialect, path))
    });
    let mut places = places.peekable();
    if places.peek().is_none() {
        return Ok(Vec::new());
    }
    let key = credential(spec, input)?;
    let base_url = base_url(spec, input.base_url)?;
    let vars = Vars { spec, input };
    vars.check(input.base_url.is_some())?;
    let candidate = Candidate {
        dialect: &spec.dialect,
        base_url: Cow::Borrowed(&base_url),
        chat: "",
        chat_stream: None,
        auto: true,
        primary: true,
    };
    let headers = Arc::new(headers(spec, &candidate, key, &vars)?);
    let service = |(capability, dialect, path): (Capability, ServiceDialect, &str)| {
        // A vendor's other host cannot follow a base URL that was replaced: there all of it is below that.
        let is_elsewhere = path.starts_with("http") && moved(spec, &base_url, path).is_none();
        let path = if is_elsewhere { capability.openai_path() } else { path };
        let mut url = vars.fill(&join(spec, &base_url, &base_url, path)?)?;
        if SLASHES_IN_MODEL.contains(&spec.dialect.as_str()) {
            url = url.replace("{model}", "{+model}");
        }
        let address = if url.contains("{model}") || url.contains("{+model}") {
            uri(&expand(&url, "m"))?;
            Address::Template(url)
        } else {
            Address::Whole(uri(&url)?)
        };
        Ok(Service { capability, dialect, address, headers: headers.clone() })
    };
    places.map(service).collect()
}

/// The credential to send, or why there can be none.
fn credential<'a>(
    spec: &ProviderSpec,
    input: &ConnectionInput<'a>,
) -> Result<Option<&'a str>, EndpointError> {
    let key = input.api_key.map(str::trim).filter(|key| !key.is_empty());
    let unsupported = |text: &str| Err(EndpointError::Unsupported(format!("`{}` {text}", spec.id)));
    match spec.auth.kind {
        AuthKind::ApiKey | AuthKind::AwsSigv4 if key.is_none() => Err(EndpointError::MissingKey),
        AuthKind::ApiKey | AuthKind::AwsSigv4 | AuthKind::ApiKeyOptional | AuthKind::None => Ok(key),
        AuthKind::Gcp => unsupported("needs a Google service account, which the gateway cannot use yet"),
        AuthKind::ClientCredentials => {
            unsupported("needs OAuth client credentials, which the gateway cannot use yet")
        }
        AuthKind::IbmIam => unsupported("needs an IBM IAM token exchange, which the gateway cannot do yet"),
    }
}

/// The base URL in force, variables not filled yet.
fn base_url<'a>(spec: &'a ProviderSpec, replaced: Option<&'a str>) -> Result<Cow<'a, str>, EndpointError> {
    let Some(given) = replaced.map(trim_base_url).filter(|url| !url.is_empty()) else {
        return Ok(Cow::Borrowed(&spec.base_url));
    };
    if given.contains(['?', '#']) {
        return Err(bad_url(given, "a base URL has no query and no fragment"));
    }
    let mut url = given;
    if spec.dialect == OLLAMA {
        for version in ["/v1", "/api"] {
            url = url.strip_suffix(version).unwrap_or(url);
        }
    }
    Ok(Cow::Borrowed(url))
}

/// The dialects to build endpoints for, the preferred one first.
fn wanted<'a>(
    spec: &'a ProviderSpec,
    input: &ConnectionInput<'_>,
    base_url: &'a str,
) -> Result<Vec<Candidate<'a>>, EndpointError> {
    let all = candidates(spec, base_url);
    let Some(asked) = input.dialect.map(str::trim).filter(|name| !name.is_empty()) else {
        return Ok(all.into_iter().filter(|candidate| candidate.auto).collect());
    };
    let names: Vec<&str> = all.iter().map(|candidate| candidate.dialect).collect();
    let known = format!("`{}` does not offer dialect `{asked}`; it offers {}", spec.id, names.join(", "));
    let named: Vec<_> =
        all.into_iter().filter(|candidate| dialects::is_called(candidate.dialect, asked)).take(1).collect();
    if named.is_empty() { Err(EndpointError::Unsupported(known)) } else { Ok(named) }
}

fn candidates<'a>(spec: &'a ProviderSpec, base_url: &'a str) -> Vec<Candidate<'a>> {
    let path = |operation: &str| spec.paths.get(operation).map(String::as_str);
    let mut all = Vec::new();
    let usual = dialects::paths(&spec.dialect);
    if let Some(chat) = path("chat").or(usual.and_then(|usual| usual.chat)) {
        // A path of its own for chat means that the usual streaming path does not apply either.
        let streaming = if path("chat").is_none() { usual.and_then(|usual| usual.chat_stream) } else { None };
        all.push(Candidate {
            dialect: &spec.dialect,
            base_url: Cow::Borrowed(base_url),
            chat,
            chat_stream: path("chat_stream").or(streaming),
            auto: true,
            primary: true,
        });
    }
    let mut alternative = |dialect: &'a str, base_url: Cow<'a, str>, auto: bool| {
        let usual = dialects::paths(dialect);
        let (own, own_stream) = match dialect {
            OPENAI_RESPONSES => (path("responses"), None),
            ANTHROPIC => (path("anthropic"), path("anthropic_stream")),
            _ => (None, None),
        };
        let Some(chat) = own.or(usual.and_then(|usual| usual.chat)) else { return };
        let chat_stream = if own.is_some() { own_stream } else { usual.and_then(|usual| usual.chat_stream) };
        all.push(Candidate { dialect, base_url, chat, chat_stream, auto, primary: false });
    };
    for alt in &spec.alt_dialects {
        // An alternative elsewhere than below the base URL cannot follow a base URL that was replaced; the
        // credential must not go to an address that the operator has turned away from.
        if let Some(base) = moved(spec, base_url, &alt.base_url) {
            alternative(&alt.dialect, base, alt.auto);
        }
    }
    for (capability, dialect) in [("responses", OPENAI_RESPONSES), ("messages", ANTHROPIC)] {
        let offered = spec.capabilities.iter().any(|name| name == capability);
        let listed = spec.dialect == dialect || spec.alt_dialects.iter().any(|alt| alt.dialect == dialect);
        if offered && !listed {
            alternative(dialect, Cow::Borrowed(base_url), true);
        }
    }
    all
}

/// `url`, which may begin like the spec's base URL, for the base URL in force. `None` if it begins otherwise
/// and the base URL was replaced.
fn moved<'a>(spec: &ProviderSpec, base_url: &str, url: &'a str) -> Option<Cow<'a, str>> {
    if base_url == spec.base_url {
        return Some(Cow::Borrowed(url));
    }
    let rest = url.strip_prefix(spec.base_url.as_str())?;
    (rest.is_empty() || rest.starts_with('/')).then(|| Cow::Owned(format!("{base_url}{rest}")))
}

fn join(spec: &ProviderSpec, base_url: &str, own_base: &str, path: &str) -> Result<String, EndpointError> {
    if !path.starts_with("http") {
        return Ok(format!("{own_base}{path}"));
    }
    match moved(spec, base_url, path) {
        Some(url) => Ok(url.into_owned()),
        None => Err(bad_url(path, "it is not below the base URL that this connection replaces")),
    }
}

fn models_url(spec: &ProviderSpec, base_url: &str) -> Option<String> {
    let path = match spec.paths.get("models") {
        Some(path) => path.as_str(),
        None if spec.capabilities.iter().any(|name| name == "list_models") => "/models",
        None => return None,
    };
    if path.starts_with("http") {
        moved(spec, base_url, path).map(Cow::into_owned)
    } else {
        Some(format!("{base_url}{path}"))
    }
}

fn headers(
    spec: &ProviderSpec,
    candidate: &Candidate<'_>,
    key: Option<&str>,
    vars: &Vars<'_>,
) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("omniroute/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in &spec.headers {
        // A variable without a value leaves the header out: it was optional.
        if let Some(value) = vars.fill_all(value) {
            set(&mut headers, name, &value, false)?;
        }
    }
    if candidate.dialect == ANTHROPIC && !headers.contains_key("anthropic-version") {
        headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
    }
    if let Some(key) = key {
        authenticate(spec, candidate, key, &mut headers)?;
    }
    for (name, value) in &vars.input.extra_headers {
        set(&mut headers, name, value, true)?;
    }
    Ok(headers)
}

fn authenticate(
    spec: &ProviderSpec,
    candidate: &Candidate<'_>,
    key: &str,
    headers: &mut HeaderMap,
) -> Result<(), EndpointError> {
    let Auth { kind, header: name, prefix, .. } = &spec.auth;
    // Google's own header is not understood by its endpoint in OpenAI's dialect.
    let foreign = !candidate.primary && spec.dialect == GEMINI && dialects::wants_bearer(candidate.dialect);
    match (kind, name) {
        (AuthKind::ApiKey | AuthKind::ApiKeyOptional, Some(name)) if !foreign => {
            set(headers, name, &format!("{}{key}", prefix.as_deref().unwrap_or_default()), true)?;
        }
        _ => set(headers, "authorization", &format!("Bearer {key}"), true)?,
    }
    if candidate.dialect == ANTHROPIC && !candidate.primary {
        set(headers, "x-api-key", key, true)?;
    }
    Ok(())
}

fn set(headers: &mut HeaderMap, name: &str, value: &str, sensitive: bool) -> Result<(), EndpointError> {
    let bad = || EndpointError::BadHeader(name.to_owned());
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
    if NOT_SETTABLE.contains(&parsed.as_str()) {
        return Err(bad());
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
    value.set_sensitive(sensitive);
    headers.insert(parsed, value);
    Ok(())
}

fn not_spoken(spec: &ProviderSpec, unspoken: &[&str]) -> EndpointError {
    if spec.capabilities.is_empty() {
        return EndpointError::Unsupported(format!(
            "`{}` speaks `{}`, which the gateway does not speak yet",
            spec.id, spec.dialect
        ));
    }
    if unspoken.is_empty() {
        return EndpointError::Unsupported(format!("`{}` has no chat operation", spec.id));
    }
    let names: Vec<String> = unspoken.iter().map(|name| format!("`{name}`")).collect();
    let way_out = spec.alt_dialects.iter().find(|alt| dialects::spoken(&alt.dialect).is_some());
    let mut text =
        format!("`{}` speaks {}, which the gateway does not speak yet", spec.id, names.join(" and "));
    if let Some(alt) = way_out {
        text.push_str(&format!(
            "; set `dialect` to `{}` in providerSpecificData to use its compatible endpoint",
            alt.dialect
        ));
    }
    EndpointError::Unsupported(text)
}

/// Values for `{name}`.
struct Vars<'a> {
    spec: &'a ProviderSpec,
    input: &'a ConnectionInput<'a>,
}

impl Vars<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let pick = |vars: &BTreeMap<String, String>| vars.get(name).map(|value| value.trim().len());
        if pick(&self.input.vars).is_some_and(|len| len > 0) {
            return self.input.vars.get(name).map(|value| value.trim());
        }
        self.spec.vars.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Whether every variable has a value. Those that only the replaced base URL needed may be missing.
    fn check(&self, base_replaced: bool) -> Result<(), EndpointError> {
        for name in self.spec.vars.keys() {
            let only_in_base = base_replaced
                && variables(&self.spec.base_url).any(|used| used == name)
                && !self.spec.paths.values().any(|path| variables(path).any(|used| used == name));
            if self.value(name).is_none() && !only_in_base {
                return Err(EndpointError::MissingVariable(name.clone()));
            }
        }
        Ok(())
    }

    /// A URL with its variables filled; `{model}` and `{voice}` stay.
    fn fill(&self, text: &str) -> Result<String, EndpointError> {
        let mut out = text.to_owned();
        for name in variables(text).filter(|name| !matches!(*name, "model" | "voice")) {
            let value = self.value(name).ok_or_else(|| EndpointError::MissingVariable(name.to_owned()))?;
            out = out.replace(&format!("{{{name}}}"), value);
        }
        Ok(out)
    }

    /// A header's value with its variables filled; `None` if one has no value.
    fn fill_all(&self, text: &str) -> Option<String> {
        let mut out = text.to_owned();
        for name in variables(text) {
            out = out.replace(&format!("{{{name}}}"), self.value(name)?);
        }
        Some(out)
    }
}

/// The names in braces of a text.
pub(crate) fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .filter(|name| is_variable(name))
}

/// Whether `name` can stand in braces.
pub(crate) fn is_variable(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

pub(crate) fn expand(template: &str, model: &str) -> String {
    template
        .replace("{model}", &utf8_percent_encode(model, SEGMENT).to_string())
        .replace("{+model}", &utf8_percent_encode(model, SEGMENTS).to_string())
}

pub(crate) fn uri(url: &str) -> Result<Uri, EndpointError> {
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| bad_url(url, &error.to_string()))?;
    if !matches!(uri.scheme_str(), Some("http" | "https" | crate::registry::SIM)) {
        return Err(bad_url(url, "it must begin with http:// or https://"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(bad_url(url, "it has no host"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(bad_url("…", "it holds a user name; put credentials into the key or the headers"));
    }
    Ok(uri)
}

fn bad_url(url: &str, reason: &str) -> EndpointError {
    EndpointError::BadUrl { url: url.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
