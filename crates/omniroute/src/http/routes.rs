//! The table of client routes: path and method to dialect and operation. The only place outside the dialects that
//! names them.

mod openapi;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use http::{HeaderMap, Method};
use omniroute_dialect::{
    Dialect, KeptCall, anthropic::Anthropic, embeddings::Form, gemini::Gemini, ollama::Ollama,
    openai::OpenAi, responses::Responses,
};
use omniroute_provider::Capability;

pub(crate) use openapi::document;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// Continue a conversation.
    Chat,
    /// Count the tokens of one.
    Count,
    /// List models.
    Models,
    /// List those for one operation.
    ModelsFor(Capability),
    /// Describe one model.
    Model {
        /// Its name as the client wrote it, percent-decoded.
        id: String,
    },
    /// Describe the model that the body names.
    Show,
    /// List the models that are loaded.
    Loaded,
    /// Say which version is spoken.
    Version,
    /// Make vectors of texts.
    Embed {
        /// How it is asked.
        form: Form,
        /// The model, where the path names it.
        model: Option<String>,
    },
    /// Make pictures.
    Images {
        /// Of others.
        edits: bool,
    },
    /// Speak a text.
    Speech,
    /// Write down what is said.
    Transcribe {
        /// In English.
        translates: bool,
    },
    /// Do something with an answer that a vendor keeps.
    Kept {
        /// Its id.
        id: String,
        /// What.
        call: KeptCall,
    },
    /// CORS asks what is allowed.
    Preflight {
        /// The methods of the path.
        methods: &'static str,
    },
    /// There is no such path below a client prefix.
    NotFound,
    /// The path is one that vendors had once.
    Gone {
        /// What is to be asked for in its place.
        instead: &'static str,
    },
    /// The path has other methods.
    MethodNotAllowed {
        /// Which.
        methods: &'static str,
    },
}

/// A client route that was found.
pub(super) struct Route {
    pub(super) operation: Operation,
    pub(super) dialect: &'static dyn Dialect,
    /// The name that keys are restricted by.
    pub(super) endpoint: &'static str,
    /// The provider that the path names.
    pub(super) provider: Option<String>,
}

impl Route {
    /// The same for a client that shows by its headers which shape of lists it reads, where the path leaves it open.
    pub(super) fn for_client(self, headers: &HeaderMap) -> Self {
        match self.operation {
            _ if self.dialect.id() != OPENAI.id() => self,
            Operation::Models | Operation::Model { .. } if headers.contains_key("anthropic-version") => {
                Self { dialect: ANTHROPIC, ..self }
            }
            Operation::Models | Operation::Model { .. } if headers.contains_key("x-goog-api-key") => {
                Self { dialect: GEMINI, ..self }
            }
            _ => self,
        }
    }
}

/// The shapes in which clients read lists of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    OpenAi,
    Anthropic,
    Google,
    Ollama,
}

/// The shape for clients of a dialect.
pub(super) fn lists(dialect: &dyn Dialect) -> Lists {
    let is = |other: &dyn Dialect| dialect.id() == other.id();
    if is(ANTHROPIC) {
        Lists::Anthropic
    } else if is(GEMINI) {
        Lists::Google
    } else if is(OLLAMA) {
        Lists::Ollama
    } else {
        Lists::OpenAi
    }
}

/// Where a request belongs.
pub(super) enum Found {
    /// To the engine.
    Route(Route),
    /// To the management router.
    Elsewhere,
}

/// A row of the table.
struct Row {
    path: &'static str,
    method: &'static str,
    dialect: &'static dyn Dialect,
    endpoint: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The path alone.
    Exact(Simple),
    /// The rest of the path is a model's name.
    Model,
    /// The rest of the path is a model's name, a colon and what to do with it.
    ModelAction,
    /// The same, and nothing else is there.
    BareAction,
    /// `{provider}` stands in the path, and this behind it.
    Provider(&'static str, Simple),
    /// The rest of the path is an answer's id, and what to do with it where the method does not say.
    Kept(KeptCall),
}

/// Operations that need nothing of the path.
#[derive(Clone, Copy)]
enum Simple {
    Chat,
    Count,
    Models,
    ModelsFor(Capability),
    Show,
    Loaded,
    Version,
    Embed(Form),
    Images { edits: bool },
    Speech,
    Transcribe { translates: bool },
    Gone { instead: &'static str },
}

impl From<Simple> for Operation {
    fn from(simple: Simple) -> Self {
        match simple {
            Simple::Chat => Self::Chat,
            Simple::Count => Self::Count,
            Simple::Models => Self::Models,
            Simple::ModelsFor(capability) => Self::ModelsFor(capability),
            Simple::Show => Self::Show,
            Simple::Loaded => Self::Loaded,
            Simple::Version => Self::Version,
            Simple::Embed(form) => Self::Embed { form, model: None },
            Simple::Images { edits } => Self::Images { edits },
            Simple::Gone { instead } => Self::Gone { instead },
            Simple::Speech => Self::Speech,
            Simple::Transcribe { translates } => Self::Transcribe { translates },
        }
    }
}

/// Recordings as text, in the language that is spoken.
const TRANSCRIBE: Simple = Simple::Transcribe { translates: false };
/// Pictures from words.
const PAINT: Simple = Simple::Images { edits: false };
/// Pictures from others.
const EDIT: Simple = Simple::Images { edits: true };
/// Pictures that are like others, without words; the one model that made them is gone.
const VARY: Simple = Simple::Gone {
    instead: "the one model that made variations was shut down; send the picture to /v1/images/edits with a prompt",
};
/// What keys are restricted by where vectors are made.
const EMBEDDINGS: &str = "embeddings";

static OPENAI: &dyn Dialect = &OpenAi;
static RESPONSES: &dyn Dialect = &Responses;
static ANTHROPIC: &dyn Dialect = &Anthropic;
static GEMINI: &dyn Dialect = &Gemini;
static OLLAMA: &dyn Dialect = &Ollama;

const fn post(path: &'static str, dialect: &'static dyn Dialect, endpoint: &'static str, kind: Kind) -> Row {
    Row { path, method: "POST", dialect, endpoint, kind }
}

const fn get(path: &'static str, dialect: &'static dyn Dialect, endpoint: &'static str, kind: Kind) -> Row {
    Row { path, method: "GET", dialect, endpoint, kind }
}

const fn delete(
    path: &'static str,
    dialect: &'static dyn Dialect,
    endpoint: &'static str,
    kind: Kind,
) -> Row {
    Row { path, method: "DELETE", dialect, endpoint, kind }
}

/// A path with two methods has two rows, one after the other.
static ROWS: &[Row] = &[
    post("/v1/chat/completions", OPENAI, "chat", Kind::Exact(Simple::Chat)),
    post("/v1/providers/", OPENAI, "chat", Kind::Provider("/chat/completions", Simple::Chat)),
    post("/v1/providers/", RESPONSES, "responses", Kind::Provider("/responses", Simple::Chat)),
    post("/v1/providers/", ANTHROPIC, "messages", Kind::Provider("/messages", Simple::Chat)),
    get("/v1/providers/", OPENAI, "models", Kind::Provider("/models", Simple::Models)),
    post("/v1/embeddings", OPENAI, EMBEDDINGS, Kind::Exact(Simple::Embed(Form::OpenAi))),
    get("/v1/embeddings", OPENAI, "models", Kind::Exact(Simple::ModelsFor(Capability::Embeddings))),
    post("/v1/providers/", OPENAI, EMBEDDINGS, Kind::Provider("/embeddings", Simple::Embed(Form::OpenAi))),
    post("/v1/images/generations", OPENAI, "images", Kind::Exact(PAINT)),
    get("/v1/images/generations", OPENAI, "models", Kind::Exact(Simple::ModelsFor(Capability::Images))),
    post("/v1/providers/", OPENAI, "images", Kind::Provider("/images/generations", PAINT)),
    post("/v1/images/edits", OPENAI, "images", Kind::Exact(EDIT)),
    post("/v1/providers/", OPENAI, "images", Kind::Provider("/images/edits", EDIT)),
    post("/v1/images/variations", OPENAI, "images", Kind::Exact(VARY)),
    post("/v1/audio/transcriptions", OPENAI, "audio", Kind::Exact(TRANSCRIBE)),
    post("/v1/providers/", OPENAI, "audio", Kind::Provider("/audio/transcriptions", TRANSCRIBE)),
    post("/v1/audio/translations", OPENAI, "audio", Kind::Exact(Simple::Transcribe { translates: true })),
    post("/v1/audio/speech", OPENAI, "audio", Kind::Exact(Simple::Speech)),
    post("/v1/providers/", OPENAI, "audio", Kind::Provider("/audio/speech", Simple::Speech)),
    post("/v1/responses", RESPONSES, "responses", Kind::Exact(Simple::Chat)),
    post("/v1/responses/input_tokens", RESPONSES, "responses", Kind::Exact(Simple::Count)),
    get("/v1/responses/", RESPONSES, "responses", Kind::Kept(KeptCall::Read)),
    delete("/v1/responses/", RESPONSES, "responses", Kind::Kept(KeptCall::Delete)),
    post("/v1/responses/", RESPONSES, "responses", Kind::Kept(KeptCall::Cancel)),
    get("/v1/responses/", RESPONSES, "responses", Kind::Kept(KeptCall::Inputs)),
    post("/v1/messages", ANTHROPIC, "messages", Kind::Exact(Simple::Chat)),
    post("/v1/messages/count_tokens", ANTHROPIC, "messages", Kind::Exact(Simple::Count)),
    get("/v1/models", OPENAI, "models", Kind::Exact(Simple::Models)),
    // Newer clients of Google leave out the `beta`.
    post("/v1/models/", GEMINI, "gemini", Kind::ModelAction),
    get("/v1/models/", OPENAI, "models", Kind::Model),
    get("/v1beta/models", GEMINI, "models", Kind::Exact(Simple::Models)),
    post("/v1beta/models/", GEMINI, "gemini", Kind::ModelAction),
    get("/v1beta/models/", GEMINI, "models", Kind::Model),
    // The AI SDK of Vercel leaves `models/` out where the name has a slash.
    post("/v1beta/", GEMINI, "gemini", Kind::BareAction),
    post("/api/chat", OLLAMA, "ollama", Kind::Exact(Simple::Chat)),
    post("/api/generate", OLLAMA, "ollama", Kind::Exact(Simple::Chat)),
    post("/api/embed", OLLAMA, EMBEDDINGS, Kind::Exact(Simple::Embed(Form::Ollama))),
    post("/api/embeddings", OLLAMA, EMBEDDINGS, Kind::Exact(Simple::Embed(Form::OllamaOne))),
    get("/api/tags", OLLAMA, "models", Kind::Exact(Simple::Models)),
    post("/api/show", OLLAMA, "models", Kind::Exact(Simple::Show)),
    get("/api/ps", OLLAMA, "models", Kind::Exact(Simple::Loaded)),
    get("/api/version", OLLAMA, "models", Kind::Exact(Simple::Version)),
];

/// The names by which keys are restricted, in order.
pub(crate) fn endpoints() -> Vec<&'static str> {
    let mut names: Vec<_> = ROWS.iter().map(|row| row.endpoint).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The path that aliases mean: no doubled `/v1`, no `/api` before it, no trailing slash.
pub(super) fn normal_form(path: &str) -> Cow<'_, str> {
    let mut rest = path;
    if let Some(inner) =
        rest.strip_prefix("/api").filter(|inner| is_below(inner, "/v1") || is_below(inner, "/v1beta"))
    {
        rest = inner;
    }
    while let Some(inner) = rest.strip_prefix("/v1").filter(|inner| is_below(inner, "/v1")) {
        rest = inner;
    }
    // Ollama's paths below a base URL that ends in `/v1`.
    if let Some(inner) = rest.strip_prefix("/v1").filter(|inner| is_below(inner, "/api")) {
        rest = inner;
    }
    if rest.len() > 1 {
        rest = rest.trim_end_matches('/');
    }
    Cow::Borrowed(rest)
}

/// Whether `path` is `prefix` or lies below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Finds the route of a path in normal form.
pub(super) fn find(path: &str, method: &Method) -> Found {
    let mut rows = ROWS.iter().filter_map(|row| row.matches(path)).peekable();
    let Some((first, ..)) = rows.peek() else {
        if !is_below(path, "/v1") && !is_below(path, "/v1beta") {
            return Found::Elsewhere;
        }
        let dialect = if is_below(path, "/v1/messages") {
            ANTHROPIC
        } else if is_below(path, "/v1/responses") {
            RESPONSES
        } else if is_below(path, "/v1beta") {
            GEMINI
        } else {
            OPENAI
        };
        return Found::Route(Route { dialect, ..nowhere() });
    };
    let (dialect, endpoint) = (first.dialect, first.endpoint);
    let mut methods: Option<&'static str> = None;
    for (row, operation, provider) in rows {
        if method.as_str() == row.method || (method == Method::HEAD && row.method == "GET") {
            return Found::Route(Route { operation, dialect: row.dialect, endpoint: row.endpoint, provider });
        }
        methods = Some(match methods {
            Some(_) if row.method == "DELETE" => "GET, HEAD, DELETE, OPTIONS",
            Some(_) => "GET, HEAD, POST, OPTIONS",
            None => row.methods(),
        });
    }
    let methods = methods.unwrap_or("OPTIONS");
    let operation = if method == Method::OPTIONS {
        Operation::Preflight { methods }
    } else {
        Operation::MethodNotAllowed { methods }
    };
    Found::Route(Route { operation, dialect, endpoint, provider: None })
}

/// The route of paths that are not there.
pub(super) fn nowhere() -> Route {
    Route { operation: Operation::NotFound, dialect: OPENAI, endpoint: "unknown", provider: None }
}

impl Row {
    fn matches(&self, path: &str) -> Option<(&Self, Operation, Option<String>)> {
        match self.kind {
            Kind::Exact(simple) => (path == self.path).then(|| (self, simple.into(), None)),
            Kind::Model => {
                let id = path.strip_prefix(self.path).filter(|id| !id.is_empty())?.to_owned();
                Some((self, Operation::Model { id }, None))
            }
            Kind::ModelAction | Kind::BareAction => {
                let rest = path.strip_prefix(self.path)?;
                // Tags of models have colons too.
                let named = rest.rsplit_once(':').filter(|(model, _)| !model.is_empty());
                let embed = |form| Operation::Embed { form, model: named.map(|(model, _)| model.to_owned()) };
                let operation = match named.map(|(_, action)| action) {
                    Some("generateContent" | "streamGenerateContent") => Operation::Chat,
                    Some("countTokens") => Operation::Count,
                    Some("embedContent") => embed(Form::GeminiOne),
                    Some("batchEmbedContents") => embed(Form::GeminiBatch),
                    _ if matches!(self.kind, Kind::BareAction) => return None,
                    _ => Operation::NotFound,
                };
                Some((self, operation, None))
            }
            Kind::Provider(operation, simple) => {
                let rest = path.strip_prefix(self.path)?;
                let provider = rest.strip_suffix(operation)?;
                let is_name = !provider.is_empty() && !provider.contains('/');
                is_name.then(|| (self, simple.into(), Some(provider.to_owned())))
            }
            Kind::Kept(call) => {
                let rest = path.strip_prefix(self.path)?;
                let id = match call {
                    KeptCall::Read | KeptCall::Delete => rest,
                    KeptCall::Cancel => rest.strip_suffix("/cancel")?,
                    KeptCall::Inputs => rest.strip_suffix("/input_items")?,
                };
                let is_id = !id.is_empty() && !id.contains('/') && id != "input_tokens";
                is_id.then(|| (self, Operation::Kept { id: id.to_owned(), call }, None))
            }
        }
    }

    fn methods(&self) -> &'static str {
        match self.method {
            "GET" => "GET, HEAD, OPTIONS",
            "DELETE" => "DELETE, OPTIONS",
            _ => "POST, OPTIONS",
        }
    }
}
