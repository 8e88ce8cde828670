//! What is sent and answered on each client route.

use omniroute_dialect::{Dialect, KeptCall, embeddings::Form as EmbeddingsForm};
use omniroute_provider::Capability;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, Schema, SchemaFormat, SchemaType};
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Type};

use super::super::{ANTHROPIC, GEMINI, Lists, OLLAMA, RESPONSES, Simple, lists};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";
const UPLOAD: &str = "multipart/form-data";

const OPENAI_API: &str = "https://platform.openai.com/docs/api-reference";
const ANTHROPIC_API: &str = "https://docs.anthropic.com/en/api";
const GOOGLE_API: &str = "https://ai.google.dev/api";
const OLLAMA_API: &str = "https://github.com/ollama/ollama/blob/main/docs/api.md";

/// A name, and what it is for.
type Named = (&'static str, &'static str);

/// One operation in words.
pub(super) struct Form {
    pub(super) summary: &'static str,
    /// The vendor whose format it is; the beginning of its documentation's address.
    api: &'static str,
    /// The page within it.
    page: &'static str,
    /// Kinds of content that the body may have, the usual one first; none where there is no body.
    pub(super) takes: &'static [&'static str],
    /// Members of the body that the gateway reads or insists on.
    members: &'static [Member],
    /// Parameters of the query.
    pub(super) query: Vec<Named>,
    /// Kinds of content of a good answer.
    pub(super) answers: &'static [&'static str],
}

/// A member of a body.
struct Member {
    name: &'static str,
    kind: Kind,
    is_required: bool,
    about: &'static str,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Switch,
    Number,
    List,
    File,
    /// Of several types.
    Any,
}

const fn needs(name: &'static str, kind: Kind, about: &'static str) -> Member {
    Member { name, kind, is_required: true, about }
}

const fn may(name: &'static str, kind: Kind, about: &'static str) -> Member {
    Member { name, kind, is_required: false, about }
}

const MODEL: Member = needs(
    "model",
    Kind::Text,
    "A combo, an alias, `provider/model` or a model's own name, with or without a suffix for reasoning",
);
const STREAM: Member = may("stream", Kind::Switch, "Whether the answer comes piece by piece");
const STREAM_ELSE: Member =
    may("stream", Kind::Switch, "`false`: the answer comes as a whole, not piece by piece");
const MESSAGES: Member = needs("messages", Kind::List, "The conversation so far");
const INPUT: Member = needs("input", Kind::Any, "A text, or several");

impl Form {
    /// Where the vendor describes it.
    pub(super) fn address(&self) -> String {
        format!("{}{}", self.api, self.page)
    }

    /// The body as far as the gateway looks into it.
    pub(super) fn body(&self) -> Object {
        let mut body = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)));
        for member in self.members {
            body = body.property(member.name, member.schema());
            if member.is_required {
                body = body.required(member.name);
            }
        }
        body.build()
    }
}

impl Member {
    fn schema(&self) -> RefOr<Schema> {
        let kind = match self.kind {
            Kind::List => {
                return ArrayBuilder::new().description(Some(self.about)).items(Object::default()).into();
            }
            Kind::Any => {
                return ObjectBuilder::new()
                    .schema_type(SchemaType::AnyValue)
                    .description(Some(self.about))
                    .into();
            }
            Kind::Switch => Type::Boolean,
            Kind::Number => Type::Integer,
            Kind::Text | Kind::File => Type::String,
        };
        let mut schema = ObjectBuilder::new().schema_type(kind).description(Some(self.about));
        if matches!(self.kind, Kind::File) {
            schema = schema.format(Some(SchemaFormat::Custom("binary".to_owned())));
        }
        schema.into()
    }
}

/// What is done at a path.
pub(super) fn of(dialect: &dyn Dialect, simple: Simple, path: &str) -> Form {
    match simple {
        Simple::Chat => chat(dialect, path),
        Simple::Count => count(dialect),
        Simple::Models => {
            let mut form = models(dialect);
            form.query.retain(|(name, _)| *name != "provider" || !path.contains("{provider}"));
            form
        }
        Simple::ModelsFor(Capability::Embeddings) => models_for(dialect, "Models that make vectors"),
        Simple::ModelsFor(Capability::Images) => models_for(dialect, "Models that make pictures"),
        Simple::ModelsFor(_) => models_for(dialect, "Models for this operation"),
        Simple::Show => Form {
            summary: "What a model can do",
            takes: &[JSON],
            members: const {
                &[may("model", Kind::Text, "Its name as listed; `name` means the same, and one is needed")]
            },
            ..read(OLLAMA_API, "#show-model-information")
        },
        Simple::Loaded => {
            Form { summary: "Models that are loaded", ..read(OLLAMA_API, "#list-running-models") }
        }
        Simple::Version => {
            Form { summary: "The version of the API that is spoken", ..read(OLLAMA_API, "#version") }
        }
        Simple::Embed(form) => embed(form),
        Simple::Images { edits: false } => Form {
            summary: "Make pictures from words",
            takes: &[JSON],
            members: const { &[MODEL, needs("prompt", Kind::Text, "What is to be seen"), STREAM] },
            answers: &[JSON, EVENTS],
            ..read(OPENAI_API, "/images/create")
        },
        Simple::Images { edits: true } => Form {
            summary: "Make pictures from others",
            takes: &[UPLOAD, JSON],
            members: const {
                &[
                    MODEL,
                    needs("prompt", Kind::Text, "What is to be different"),
                    may("image", Kind::File, "A picture; several as `image[]`, in JSON as `images`"),
                    may("mask", Kind::File, "Where it is to be different"),
                    STREAM,
                ]
            },
            answers: &[JSON, EVENTS],
            ..read(OPENAI_API, "/images/createEdit")
        },
        Simple::Speech => Form {
            summary: "Speak a text",
            takes: &[JSON],
            members: const {
                &[MODEL, needs("input", Kind::Text, "What is said"), may("voice", Kind::Any, "By whom")]
            },
            answers: &["audio/*", EVENTS],
            ..read(OPENAI_API, "/audio/createSpeech")
        },
        Simple::Transcribe { translates: false } => {
            Form { summary: "Write down what is said", ..recording("/audio/createTranscription") }
        }
        Simple::Transcribe { translates: true } => {
            Form { summary: "Write down in English what is said", ..recording("/audio/createTranslation") }
        }
        Simple::Gone { instead } => Form { summary: instead, ..read(OPENAI_API, "") },
    }
}

/// What is done with an answer that a vendor keeps.
pub(super) fn kept(call: KeptCall) -> Form {
    let page = |summary, page| Form { summary, ..read(OPENAI_API, page) };
    match call {
        KeptCall::Read => Form {
            query: vec![("stream", "`true`: what is still being made comes piece by piece")],
            answers: &[JSON, EVENTS],
            ..page("Read an answer that the vendor keeps", "/responses/get")
        },
        KeptCall::Delete => page("Have an answer deleted that the vendor keeps", "/responses/delete"),
        KeptCall::Cancel => page("End an answer that is made in the background", "/responses/cancel"),
        KeptCall::Inputs => page("What a kept answer is an answer to", "/responses/input-items"),
    }
}

/// What one model is, told in the shape of the dialect.
pub(super) fn one_model(dialect: &dyn Dialect) -> Form {
    Form { summary: "A model, by its name as listed", query: Vec::new(), ..models(dialect) }
}

/// Something that is read without a body.
fn read(api: &'static str, page: &'static str) -> Form {
    Form { summary: "", api, page, takes: &[], members: &[], query: Vec::new(), answers: &[JSON] }
}

fn chat(dialect: &dyn Dialect, path: &str) -> Form {
    let is = |other: &dyn Dialect| dialect.id() == other.id();
    let form = Form { summary: "Continue a conversation", takes: &[JSON], ..read("", "") };
    if is(RESPONSES) {
        Form {
            api: OPENAI_API,
            page: "/responses/create",
            members: const { &[MODEL, may("input", Kind::Any, "A text, or the items so far"), STREAM] },
            answers: &[JSON, EVENTS],
            ..form
        }
    } else if is(ANTHROPIC) {
        Form {
            api: ANTHROPIC_API,
            page: "/messages",
            members: const {
                &[MODEL, needs("max_tokens", Kind::Number, "Most tokens of the answer"), MESSAGES, STREAM]
            },
            answers: &[JSON, EVENTS],
            ..form
        }
    } else if is(GEMINI) {
        let is_stream = path.ends_with("streamGenerateContent");
        Form {
            summary: if is_stream {
                "Continue a conversation, answered piece by piece"
            } else {
                "Continue a conversation"
            },
            api: GOOGLE_API,
            page: "/generate-content",
            members: const { &[needs("contents", Kind::List, "The conversation so far")] },
            query: if is_stream {
                vec![("alt", "`sse`: as events; otherwise as one list")]
            } else {
                Vec::new()
            },
            answers: if is_stream { &[EVENTS, JSON] } else { &[JSON] },
            ..form
        }
    } else if is(OLLAMA) && path.ends_with("/generate") {
        Form {
            summary: "Continue a text",
            api: OLLAMA_API,
            page: "#generate-a-completion",
            members: const { &[MODEL, may("prompt", Kind::Text, "What is asked"), STREAM_ELSE] },
            answers: &[LINES, JSON],
            ..form
        }
    } else if is(OLLAMA) {
        Form {
            api: OLLAMA_API,
            page: "#generate-a-chat-completion",
            members: const {
                &[
                    MODEL,
                    may("messages", Kind::List, "The conversation so far; without any the model is loaded"),
                    STREAM_ELSE,
                ]
            },
            answers: &[LINES, JSON],
            ..form
        }
    } else {
        Form {
            api: OPENAI_API,
            page: "/chat/create",
            members: const { &[MODEL, MESSAGES, STREAM] },
            answers: &[JSON, EVENTS],
            ..form
        }
    }
}

fn count(dialect: &dyn Dialect) -> Form {
    let form = Form { summary: "Count the tokens of a conversation", takes: &[JSON], ..read("", "") };
    match lists(dialect) {
        Lists::Anthropic => Form {
            api: ANTHROPIC_API,
            page: "/messages-count-tokens",
            members: const { &[MODEL, MESSAGES] },
            ..form
        },
        Lists::Google => Form {
            api: GOOGLE_API,
            page: "/tokens",
            members: const {
                &[
                    may("contents", Kind::List, "The conversation so far"),
                    may("generateContentRequest", Kind::Any, "The same as a whole request"),
                ]
            },
            ..form
        },
        _ => Form {
            api: OPENAI_API,
            page: "/responses/input-tokens",
            members: const { &[MODEL, may("input", Kind::Any, "A text, or the items so far")] },
            ..form
        },
    }
}

/// What lists are narrowed by, in every shape.
const FILTERS: [Named; 2] = [
    ("type", "Only `chat`, `embedding`, `image`, `audio`, `rerank` or `moderation` models"),
    ("provider", "Only those of this provider: its id, an alias or a node's prefix"),
];
/// Pages of the shapes that have any.
const OF_ANTHROPIC: [Named; 3] = [
    ("limit", "For clients that send `anthropic-version`: most models of an answer"),
    ("after_id", "For the same: the last model of the page before"),
    ("before_id", "For the same: the first model of the page behind"),
];
const OF_GOOGLE: [Named; 2] = [
    ("pageSize", "In Google's shape: most models of an answer"),
    ("pageToken", "In Google's shape: where the page before ended"),
];

fn models(dialect: &dyn Dialect) -> Form {
    const SUMMARY: &str = "Models that the key may ask for";
    let mut query = FILTERS.to_vec();
    match lists(dialect) {
        Lists::OpenAi | Lists::Anthropic => {
            query.extend(OF_ANTHROPIC.iter().chain(&OF_GOOGLE));
            Form {
                summary: "Models that the key may ask for; in the vendor's shape for clients that send \
                          `anthropic-version` or `x-goog-api-key`",
                query,
                ..read(OPENAI_API, "/models/list")
            }
        }
        Lists::Google => {
            query.extend(OF_GOOGLE);
            Form { summary: SUMMARY, query, ..read(GOOGLE_API, "/models") }
        }
        Lists::Ollama => Form { summary: SUMMARY, query, ..read(OLLAMA_API, "#list-local-models") },
    }
}

/// The same where the path says already what they are for.
fn models_for(dialect: &dyn Dialect, summary: &'static str) -> Form {
    let mut form = models(dialect);
    form.query.retain(|(name, _)| *name != "type");
    Form { summary, ..form }
}

fn embed(form: EmbeddingsForm) -> Form {
    let embed = Form { summary: "Make vectors of texts", takes: &[JSON], ..read("", "") };
    match form {
        EmbeddingsForm::GeminiOne => Form {
            api: GOOGLE_API,
            page: "/embeddings",
            members: const { &[needs("content", Kind::Any, "The text")] },
            ..embed
        },
        EmbeddingsForm::GeminiBatch => Form {
            api: GOOGLE_API,
            page: "/embeddings",
            members: const { &[needs("requests", Kind::List, "One for each text")] },
            ..embed
        },
        EmbeddingsForm::Ollama => Form {
            api: OLLAMA_API,
            page: "#generate-embeddings",
            members: const { &[MODEL, INPUT] },
            ..embed
        },
        EmbeddingsForm::OllamaOne => Form {
            api: OLLAMA_API,
            page: "#generate-embedding",
            members: const { &[MODEL, needs("prompt", Kind::Text, "The text")] },
            ..embed
        },
        _ => {
            Form { api: OPENAI_API, page: "/embeddings/create", members: const { &[MODEL, INPUT] }, ..embed }
        }
    }
}

fn recording(page: &'static str) -> Form {
    Form {
        takes: &[UPLOAD],
        members: const { &[MODEL, needs("file", Kind::File, "The recording"), STREAM] },
        answers: &[JSON, "text/plain", "text/vtt", EVENTS],
        ..read(OPENAI_API, page)
    }
}
