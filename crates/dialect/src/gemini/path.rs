//! What the path of a request says: which model is asked, and for what.

use crate::{DecodeError, json_in};

/// The model and the operation of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) model: &'a str,
    pub(super) stream: bool,
}

/// Reads `/v1beta/models/<model>:<operation>` of a conversation to be continued.
pub(super) fn read(path: &str) -> Result<Asked<'_>, DecodeError> {
    let (model, operation) = split(path);
    let stream = match operation {
        "generateContent" => false,
        "streamGenerateContent" => true,
        _ => return Err(unknown("`:generateContent` or `:streamGenerateContent`")),
    };
    Ok(Asked { model: named(model)?, stream })
}

/// Reads the path of a request whose tokens are to be counted.
pub(super) fn read_count(path: &str) -> Result<Asked<'_>, DecodeError> {
    match split(path) {
        (model, "countTokens") => Ok(Asked { model: named(model)?, stream: false }),
        _ => Err(unknown("`:countTokens`")),
    }
}

/// The model and the operation. Names of models may have slashes and colons in them.
fn split(path: &str) -> (&str, &str) {
    let mut below = path.trim_start_matches('/');
    // Some clients leave `models/` out where a name has a slash, others write it twice.
    for prefix in ["v1beta/", "v1/", "models/", "models/"] {
        below = below.strip_prefix(prefix).unwrap_or(below);
    }
    below.rsplit_once(':').unwrap_or((below, ""))
}

fn named(model: &str) -> Result<&str, DecodeError> {
    if model.is_empty() {
        return Err(json_in::wrong_value("model", "the name of a model, in the path before the colon"));
    }
    Ok(model)
}

fn unknown(expected: &str) -> DecodeError {
    let message = format!("the path must end with {expected}");
    DecodeError { code: "not_found", param: None, message }
}

/// Whether the query asks for a stream of events instead of a list.
pub(super) fn wants_events(query: Option<&str>) -> bool {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .any(|(name, value)| matches!(name, "alt" | "$alt" | "%24alt") && value.eq_ignore_ascii_case("sse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_model_and_operation() {
        for (path, expected) in [
            ("/v1beta/models/gemini-2.5-pro:generateContent", Some(("gemini-2.5-pro", false))),
            ("/v1beta/models/gc/gemini-3-pro:streamGenerateContent", Some(("gc/gemini-3-pro", true))),
            ("/v1beta/models/models/gc/x:generateContent", Some(("gc/x", false))),
            ("/v1/models/ollama/qwen3:8b:streamGenerateContent", Some(("ollama/qwen3:8b", true))),
            ("/v1beta/models/a/models/b:generateContent", Some(("a/models/b", false))),
            ("/v1beta/gc/gemini-3-pro:generateContent", Some(("gc/gemini-3-pro", false))),
            ("/v1beta/a/models/b:generateContent", Some(("a/models/b", false))),
            ("/v1beta/models/:generateContent", None),
            ("/v1beta/models/x:countTokens", None),
            ("/v1beta/models/x", None),
            ("", None),
        ] {
            let found = read(path).ok().map(|asked| (asked.model, asked.stream));
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!(read_count("/v1beta/models/a/b:countTokens").expect("a count").model, "a/b");
        assert_eq!(read("/v1beta/models/x:frobnicate").expect_err("unknown").code, "not_found");
    }

    #[test]
    fn events_are_asked_for_in_the_query() {
        for (query, expected) in [
            (Some("alt=sse"), true),
            (Some("key=x&alt=SSE"), true),
            (Some("%24alt=sse"), true),
            (Some("alt=json"), false),
            (Some("salt=sse"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(wants_events(query), expected, "{query:?}");
        }
    }
}
