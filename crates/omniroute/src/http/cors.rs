//! What browsers are told about client routes.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use omniroute_engine::Answer;

/// `*` does not cover `Authorization`, hence the list.
const ALLOWED_HEADERS: &str = "*, Authorization, Content-Type, X-Api-Key, X-Goog-Api-Key, Anthropic-Version, \
     Anthropic-Beta, Idempotency-Key, X-Request-Id, X-OmniRoute-No-Cache, X-OmniRoute-Progress, X-OmniRoute-Strict, \
     X-OmniRoute-Cache-TTL";
/// What pages may read of an answer.
pub(super) const EXPOSED_HEADERS: &str = "X-Request-Id, Retry-After, retry-after-ms, request-id, X-OmniRoute-Attempts, \
     X-OmniRoute-Provider, X-OmniRoute-Model, X-OmniRoute-Combo, X-OmniRoute-Session-Id, X-OmniRoute-Usage, \
     X-OmniRoute-Fidelity, X-OmniRoute-Dropped, X-OmniRoute-Cache, X-OmniRoute-Cache-Similarity, \
     X-OmniRoute-Cache-Shadow, X-OmniRoute-Idempotent, X-OmniRoute-Progress, X-OmniRoute-Response-Cost, \
     X-OmniRoute-Provider-Breaker, X-OmniRoute-Budget-Limit, X-OmniRoute-Budget-Used, X-OmniRoute-Budget-Reset, \
     X-OmniRoute-Budget-Warning, X-OmniRoute-Budget-Action";

/// Origins that may read answers.
pub(super) struct Cors {
    /// Empty = all of them.
    origins: Vec<HeaderValue>,
}

impl Cors {
    pub(super) fn new(origins: &[String]) -> Self {
        Self { origins: origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect() }
    }

    /// Headers of every answer.
    pub(super) fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if self.origins.is_empty() {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        } else {
            headers.append(VARY, HeaderValue::from_static("Origin"));
            if let Some(origin) = origin.filter(|origin| self.origins.contains(origin)) {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            }
        }
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }

    /// The answer to `OPTIONS`.
    pub(super) fn preflight(&self, methods: &'static str) -> Response<Answer> {
        let mut response = Response::new(Answer::full(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Headers of requests.
    const ASKED: [&str; 3] = ["x-omniroute-no-cache", "x-omniroute-cache-ttl", "x-omniroute-thinking"];

    fn named_in(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                named_in(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("from_static(\"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.filter(|name| name.starts_with("x-omniroute-")).map(str::to_owned));
            }
        }
    }

    #[test]
    fn pages_may_read_every_header_of_ours() {
        let mut names = Vec::new();
        named_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src"), &mut names);
        names.retain(|name| !ASKED.contains(&name.as_str()));
        assert!(names.len() > 15, "{names:?}");
        let exposed = EXPOSED_HEADERS.to_ascii_lowercase();
        for name in names {
            assert!(exposed.split(", ").any(|known| known == name), "{name}");
        }
    }
}
