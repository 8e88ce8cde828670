//! Refusals in Google's words and shape.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use omniroute_wire::json_out::{Array, Object};
use serde_json::Value;

use crate::{
    check::{Type, Wording},
    gemini::Gemini,
    refusal::Refusal,
};

/// The code of refusals for a key that is none.
const BAD_KEY: &str = "API_KEY_INVALID";
/// The code of refusals that a field is named for.
const FIELD: &str = "FIELD";
/// The code of refusals for a day's quota.
const QUOTA: &str = "GenerateRequestsPerDayPerProjectPerModel";

impl Wording for Gemini {
    /// Paths are written as the definitions name their fields.
    fn member(&self, path: &str, key: &str) -> String {
        let key = snake(key);
        if path.is_empty() { key } else { format!("{path}.{key}") }
    }

    fn alias(&self, key: &str) -> Option<String> {
        Some(snake(key)).filter(|alias| alias != key)
    }

    fn unknown(&self, path: &str, key: &str) -> Refusal {
        let place = if path.is_empty() { String::new() } else { format!(" at '{path}'") };
        payload(path, &format!("Unknown name \"{key}\"{place}: Cannot find field."))
    }

    fn missing(&self, path: &str) -> Refusal {
        let name = path.rsplit('.').next().unwrap_or(path);
        self.wrong(path, &format!("{name} is not specified"))
    }

    fn mistyped(&self, path: &str, expected: Type, found: &Value) -> Refusal {
        let kind = match expected {
            Type::Object | Type::Array => "TYPE_MESSAGE",
            Type::String => "TYPE_STRING",
            Type::Bool => "TYPE_BOOL",
            Type::Integer => "TYPE_INT32",
            Type::Number => "TYPE_FLOAT",
        };
        invalid(path, kind, found)
    }

    fn wrong(&self, path: &str, message: &str) -> Refusal {
        Refusal::field(path, FIELD, format!("* GenerateContentRequest.{path}: {message}\n"))
    }

    fn no_key(&self) -> Refusal {
        Refusal::status(
            403,
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key \
             or other form of API consumer identity to call this API.",
        )
    }

    fn bad_key(&self) -> Refusal {
        Refusal { code: Some(BAD_KEY), ..Refusal::request("API key not valid. Please pass a valid API key.") }
    }

    fn broke(&self) -> Refusal {
        let message = "You exceeded your current quota, please check your plan and billing details.";
        Refusal { code: Some(QUOTA), ..Refusal::status(429, message) }
    }

    fn no_model(&self, name: &str, reason: &str) -> Refusal {
        Refusal::status(
            404,
            format!(
                "models/{name} is not found for API version v1beta, or is not supported for generateContent. Call \
                 ListModels to see the list of available models and their supported methods. ({reason})"
            ),
        )
    }

    fn too_long(&self, found: u64, limit: u64) -> Refusal {
        Refusal::request(format!(
            "The input token count ({found}) exceeds the maximum number of tokens allowed ({limit})."
        ))
    }

    fn document(&self, refusal: &Refusal, _: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        let mut document = Object::begin(&mut out);
        let mut error = document.object("error");
        error
            .u64("code", u64::from(refusal.status))
            .str("message", &refusal.message)
            .str("status", status(refusal.status));
        let mut details = error.array("details");
        self::details(refusal, &mut details);
        details.end();
        error.end();
        document.end();
        out.freeze()
    }

    /// It is said in the document only.
    fn retry(&self, _: Duration, _: &mut HeaderMap) {}
}

/// What is not even read: the JSON does not fit the definitions.
pub(crate) fn payload(path: &str, what: &str) -> Refusal {
    Refusal::field(path, FIELD, format!("Invalid JSON payload received. {what}"))
}

/// A value that cannot be one of that type.
pub(crate) fn invalid(path: &str, kind: &str, found: &Value) -> Refusal {
    Refusal::field(path, FIELD, format!("Invalid value at '{path}' ({kind}), {found}"))
}

/// `systemInstruction` is `system_instruction`.
pub(crate) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn details(refusal: &Refusal, details: &mut Array<'_>) {
    if refusal.code == Some(BAD_KEY) {
        let mut info = details.object();
        info.str("@type", "type.googleapis.com/google.rpc.ErrorInfo").str("reason", BAD_KEY);
        info.str("domain", "googleapis.com");
        info.end();
    }
    if let (Some(FIELD), Some(path)) = (refusal.code, &refusal.param) {
        let mut bad = details.object();
        bad.str("@type", "type.googleapis.com/google.rpc.BadRequest");
        let mut violations = bad.array("fieldViolations");
        let mut violation = violations.object();
        violation.str("field", path).str("description", &refusal.message);
        violation.end();
        violations.end();
        bad.end();
    }
    if refusal.status == 429 {
        let quota =
            if refusal.code == Some(QUOTA) { QUOTA } else { "GenerateRequestsPerMinutePerProjectPerModel" };
        let mut failure = details.object();
        failure.str("@type", "type.googleapis.com/google.rpc.QuotaFailure");
        let mut violations = failure.array("violations");
        let mut violation = violations.object();
        violation
            .str("quotaMetric", "generativelanguage.googleapis.com/generate_requests")
            .str("quotaId", quota);
        violation.end();
        violations.end();
        failure.end();
    }
    if let Some(retry) = refusal.retry {
        let mut info = details.object();
        info.str("@type", "type.googleapis.com/google.rpc.RetryInfo");
        info.str("retryDelay", &format!("{}s", retry.as_secs_f64()));
        info.end();
    }
}

fn status(code: u16) -> &'static str {
    match code {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}
