//! Lists of models, in the shapes vendors send them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most models that are kept of a list.
const MAX_MODELS: usize = 5_000;

/// A model as an upstream lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpstreamModel {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "owned_by")]
    pub(crate) owned_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context_window: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_output: Option<u64>,
}

/// `{"data":[…]}`, `{"models":[…]}` or a plain array.
#[derive(Deserialize)]
#[serde(untagged)]
enum ModelList {
    Data { data: Vec<Listed> },
    Models { models: Vec<Listed> },
    Plain(Vec<Listed>),
}

#[derive(Deserialize)]
struct Listed {
    id: Option<String>,
    /// The id, where there is no `id`; else a name for people.
    name: Option<String>,
    #[serde(alias = "displayName")]
    display_name: Option<String>,
    owned_by: Option<String>,
    #[serde(
        alias = "context_length",
        alias = "inputTokenLimit",
        alias = "max_context_length",
        alias = "max_model_len"
    )]
    context_window: Option<u64>,
    #[serde(alias = "outputTokenLimit", alias = "max_completion_tokens")]
    max_output: Option<u64>,
}

/// Reads a list; `None` when it is none.
pub(crate) fn parse_models(body: &[u8]) -> Option<Vec<UpstreamModel>> {
    let list: ModelList = serde_json::from_slice(body).ok()?;
    let (ModelList::Data { data: models } | ModelList::Models { models } | ModelList::Plain(models)) = list;
    let mut models: Vec<UpstreamModel> = models.into_iter().filter_map(model).take(MAX_MODELS).collect();
    models.sort_by(|a, b| a.id.cmp(&b.id));
    models.dedup_by(|a, b| a.id == b.id);
    Some(models)
}

fn model(listed: Listed) -> Option<UpstreamModel> {
    let (id, name) = match (listed.id, listed.name) {
        (Some(id), name) => (id, name),
        (None, Some(name)) => (name.strip_prefix("models/").unwrap_or(&name).to_owned(), None),
        (None, None) => return None,
    };
    Some(UpstreamModel {
        name: listed.display_name.or(name).filter(|name| *name != id),
        id,
        owned_by: listed.owned_by,
        context_window: listed.context_window,
        max_output: listed.max_output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_of_vendors() {
        for (body, first, count) in [
            (r#"{"object":"list","data":[{"id":"gpt-4o","owned_by":"openai"},{"id":"a"}]}"#, "a", 2),
            (
                r#"{"data":[{"type":"model","id":"claude-x","display_name":"Claude X"}],"has_more":false}"#,
                "claude-x",
                1,
            ),
            (
                r#"{"models":[{"name":"models/gemini-x","displayName":"X","inputTokenLimit":1000}]}"#,
                "gemini-x",
                1,
            ),
            (r#"{"models":[{"name":"gemma3:4b","size":1}]}"#, "gemma3:4b", 1),
            (r#"[{"id":"m"},{"id":"m"}]"#, "m", 1),
            (r#"{"object":"list","data":[],"models":[{"name":"x"}]}"#, "", 0),
        ] {
            let models = parse_models(body.as_bytes()).expect(body);
            assert_eq!(models.len(), count, "{body}");
            assert_eq!(models.first().map_or("", |model| model.id.as_str()), first, "{body}");
        }
        for body in ["", "<html>", "{}", r#"{"data":3}"#, r#"{"error":"x"}"#] {
            assert_eq!(parse_models(body.as_bytes()), None, "{body}");
        }
    }
}
