//! What handlers take beside their access value: bodies, queries, ids from the path.
//!
//! Types are strict, unknown members are lenient: they are named in `x-ignored-fields` and not lost silently.

use axum::RequestPartsExt as _;
use axum::extract::Path;
use http::{HeaderValue, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use utoipa::{IntoParams, ToSchema};

use super::{Argument, Describe, Incoming};
use crate::error::{
    AdminError, AdminResult, Detail, bad_json, invalid, invalid_field, not_found, too_large,
    unsupported_media,
};

/// Most ignored members that are named.
const MAX_IGNORED: usize = 50;

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

/// A JSON body that nothing is kept of. What is quoted in it may hold whatever its sender's texts hold, a NUL character too.
pub(crate) struct Quoted<T>(pub(crate) T);

/// A JSON body, or none.
pub(crate) struct OptionalBody<T>(pub(crate) T);

/// The query.
pub(crate) struct Filter<T>(pub(crate) T);

/// The `{id}` of the path.
pub(crate) struct Id(pub(crate) String);

/// The id of the last event that a reader of a stream got, where it comes again.
pub(crate) struct LastEventId(pub(crate) Option<String>);

/// Paths of members that nothing is done with. A handler takes it to add some of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ignored(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Ignored {
    pub(crate) fn add(&self, path: impl Into<String>) {
        let mut paths = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = path.into();
        // A change may be looked at more than once before it is made.
        if paths.len() < MAX_IGNORED && !paths.contains(&path) {
            paths.push(path);
        }
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let paths = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let plain = |path: &String| -> String {
            path.chars().take(100).map(|c| if c.is_ascii_graphic() && c != ',' { c } else { '_' }).collect()
        };
        let list = paths.iter().map(plain).collect::<Vec<_>>().join(",");
        (!list.is_empty()).then(|| HeaderValue::try_from(list).ok()).flatten()
    }
}

impl Argument for Ignored {
    fn describe(_: &mut Describe) {}

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        Ok(incoming.ignored.clone())
    }
}

impl<T: DeserializeOwned + ToSchema + Send> Argument for Body<T> {
    fn describe(route: &mut Describe) {
        route.takes::<T>(true);
    }

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        let bytes = read(incoming).await?;
        parse(&bytes, &incoming.ignored, Nul::Refused).map(Self)
    }
}

impl<T: DeserializeOwned + ToSchema + Send> Argument for Quoted<T> {
    fn describe(route: &mut Describe) {
        route.takes::<T>(true);
    }

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        let bytes = read(incoming).await?;
        parse(&bytes, &incoming.ignored, Nul::Taken).map(Self)
    }
}

impl<T: DeserializeOwned + ToSchema + Default + Send> Argument for OptionalBody<T> {
    fn describe(route: &mut Describe) {
        route.takes::<T>(false);
    }

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        let bytes = read(incoming).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        parse(&bytes, &incoming.ignored, Nul::Refused).map(Self)
    }
}

impl<T: DeserializeOwned + IntoParams + Send> Argument for Filter<T> {
    fn describe(route: &mut Describe) {
        route.filters::<T>();
    }

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        let query = incoming.parts.uri.query().unwrap_or("");
        let ignored = &incoming.ignored;
        let pairs = form_urlencoded::parse(query.as_bytes());
        if let Some((name, _)) = pairs.clone().find(|(_, value)| value.contains('\0')) {
            return Err(invalid_field(&name, "must not contain a NUL character"));
        }
        let mut note = |path: serde_ignored::Path<'_>| ignored.add(place(&path));
        let deserializer =
            serde_ignored::Deserializer::new(serde_urlencoded::Deserializer::new(pairs), &mut note);
        serde_path_to_error::deserialize(deserializer)
            .map(Self)
            .map_err(|error| invalid(vec![detail(&field_of(error.path()), &error.inner().to_string())]))
    }
}

impl Argument for Id {
    fn describe(route: &mut Describe) {
        route.has_id();
    }

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        match incoming.parts.extract::<Path<String>>().await {
            Ok(Path(id)) if id.len() <= 256 && !id.contains(char::is_control) => Ok(Self(id)),
            _ => Err(not_found("Path")),
        }
    }
}

impl Argument for LastEventId {
    fn describe(route: &mut Describe) {
        route.resumes();
    }

    async fn take(incoming: &mut Incoming) -> AdminResult<Self> {
        let id = incoming.parts.headers.get("last-event-id").and_then(|id| id.to_str().ok());
        Ok(Self(id.filter(|id| !id.is_empty()).map(str::to_owned)))
    }
}

/// The type of a body for which nobody gave one on curl's command line.
const CURLS_WORD: &str = "application/x-www-form-urlencoded";

async fn read(incoming: &mut Incoming) -> AdminResult<bytes::Bytes> {
    let headers = &incoming.parts.headers;
    // What `curl -d` says of everything. A page in a browser can have a form sent, but not with this header.
    let is_from_curl = |kind: &HeaderValue| kind == CURLS_WORD && headers.contains_key(header::AUTHORIZATION);
    if let Some(content_type) = headers.get(header::CONTENT_TYPE)
        && !is_json(content_type)
        && !is_from_curl(content_type)
    {
        return Err(unsupported_media());
    }
    let limit = usize::try_from(incoming.admin.live.load().settings.max_body_size_mb).unwrap_or(10) << 20;
    let body = std::mem::take(&mut incoming.body);
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(_) => Err(bad_json("the body ended before its end")),
    }
}

fn is_json(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// What becomes of a body with a NUL character, which not every database keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nul {
    Refused,
    Taken,
}

fn parse<T: DeserializeOwned>(bytes: &[u8], ignored: &Ignored, nul: Nul) -> AdminResult<T> {
    // A derived struct would take an array for its members in order.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{')
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
    {
        return Err(invalid(vec![Detail { field: "body".into(), message: "must be a JSON object".into() }]));
    }
    if nul == Nul::Refused && has_nul(bytes) {
        return Err(invalid_field("body", "must not contain a NUL character (`\\u0000`)"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut note = |path: serde_ignored::Path<'_>| ignored.add(place(&path));
    let deserializer = serde_ignored::Deserializer::new(&mut json, &mut note);
    let value = serde_path_to_error::deserialize(deserializer).map_err(|error| wrong(bytes, &error))?;
    json.end().map_err(|_| bad_json("there is something behind the JSON object"))?;
    Ok(value)
}

/// Whether a text within JSON has a NUL character. By itself it is not JSON.
fn has_nul(json: &[u8]) -> bool {
    let is_escape = |at: usize| json[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0;
    json.windows(6).enumerate().any(|(at, window)| window == br"\u0000" && is_escape(at))
}

/// Where a member is, as in errors: `models[1].when.foo`. What is optional on the way is no step of it.
fn place(path: &serde_ignored::Path<'_>) -> String {
    match path {
        serde_ignored::Path::Root => String::new(),
        serde_ignored::Path::Seq { parent, index } => format!("{}[{index}]", place(parent)),
        serde_ignored::Path::Map { parent, key } => match place(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        serde_ignored::Path::Some { parent }
        | serde_ignored::Path::NewtypeStruct { parent }
        | serde_ignored::Path::NewtypeVariant { parent } => place(parent),
    }
}

fn wrong(body: &[u8], error: &serde_path_to_error::Error<serde_json::Error>) -> AdminError {
    let inner = error.inner();
    if !inner.is_data() {
        return bad_json(format!("the body is not JSON: {inner}"));
    }
    // A wrong member may come before the place where the text breaks off.
    if let Err(broken) = serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        return bad_json(format!("the body is not JSON: {broken}"));
    }
    let text = inner.to_string();
    // The place is of no use to people who did not write the body by hand, and the path says it better.
    let message = text.split(" at line ").next().unwrap_or(&text);
    invalid(vec![detail(&field_of(error.path()), message)])
}

/// What is wrong, at the member that is missing or unknown where one is.
fn detail(path: &str, message: &str) -> Detail {
    if let Some((name, known)) = message.strip_prefix("unknown field `").and_then(|it| it.split_once('`')) {
        let is_named = path == name || path.ends_with(&format!(".{name}"));
        let field = match path {
            "body" => name.to_owned(),
            path if is_named => path.to_owned(),
            path => format!("{path}.{name}"),
        };
        let known = known.trim_start_matches(", ").replace('`', "");
        return Detail { field, message: format!("is not known here; {known}") };
    }
    match message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(field) if path == "body" => Detail { field: field.to_owned(), message: "is required".into() },
        Some(field) => Detail { field: format!("{path}.{field}"), message: "is required".into() },
        None => Detail { field: path.to_owned(), message: message.to_owned() },
    }
}

fn field_of(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    if path == "." { "body".to_owned() } else { path }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Draft {
        name: String,
        max_concurrent: Option<u32>,
    }

    #[test]
    fn a_wrong_member_is_named() {
        for (body, field) in [
            (r#"{}"#, "name"),
            (r#"{"name":1}"#, "name"),
            (r#"{"name":"a","maxConcurrent":-1}"#, "maxConcurrent"),
            (r#"[1]"#, "body"),
            (r#"3"#, "body"),
        ] {
            let error = parse::<Draft>(body.as_bytes(), &Ignored::default(), Nul::Refused).expect_err(body);
            assert!(format!("{error:?}").contains(&format!("field: {field:?}")), "{body}: {error:?}");
        }
        // What is wrong in it does not matter where it is not even JSON.
        for body in ["", "{", "{\"name\":\"a\"} x", "{\"name\":1", "{\"name\":1,}", "[1", "3 4"] {
            let error = parse::<Draft>(body.as_bytes(), &Ignored::default(), Nul::Refused).expect_err(body);
            assert!(format!("{error:?}").contains("BAD_JSON"), "{body}: {error:?}");
        }
    }

    #[test]
    fn an_unknown_member_that_is_refused_is_named_with_those_that_are_known() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {
            kind: Option<u8>,
            more: Option<Vec<Strict>>,
        }
        for (body, field) in [
            (r#"{"knid":1}"#, "knid"),
            (r#"{"more":[{},{"kind":1,"x.y":{}}]}"#, "more[1].x.y"),
            (r#"{"more":[{"more":[{"more2":3}]}]}"#, "more[0].more[0].more2"),
        ] {
            let error = parse::<Strict>(body.as_bytes(), &Ignored::default(), Nul::Refused).expect_err(body);
            let told = format!("{error:?}");
            assert!(told.contains(&format!("field: {field:?}")), "{body}: {told}");
            assert!(told.contains("is not known here; expected kind or more"), "{body}: {told}");
        }
        let known = parse::<Strict>(br#"{"more":[{"kind":1}]}"#, &Ignored::default(), Nul::Refused);
        let inner = known.expect("valid").more.expect("given");
        assert_eq!((inner.len(), inner[0].kind), (1, Some(1)));
    }

    #[test]
    fn ignored_members_are_named_by_where_they_are() {
        #[derive(Deserialize)]
        struct Outer {
            drafts: Option<Vec<Option<Draft>>>,
        }
        let ignored = Ignored::default();
        let body = br#"{"drafts":[{"name":"a"},{"name":"b","zz":1}]}"#;
        let drafts = parse::<Outer>(body, &ignored, Nul::Refused).expect("valid").drafts.expect("given");
        let told = drafts.iter().flatten().map(|draft| (&*draft.name, draft.max_concurrent));
        assert_eq!(told.collect::<Vec<_>>(), [("a", None), ("b", None)]);
        assert_eq!(ignored.header().expect("some"), "drafts[1].zz");
    }

    #[test]
    fn unknown_members_are_noted() {
        let ignored = Ignored::default();
        parse::<Draft>(br#"{"name":"a","budget":{"x":1},"we ird,":2}"#, &ignored, Nul::Refused)
            .expect("valid");
        assert_eq!(ignored.header().expect("some"), "budget,we_ird_");
    }
}
