//! The table of client routes: path and method to dialect and operation. The only place outside the dialects that
//! names them.

use std::borrow::Cow;

use http::{HeaderMap, Method};
use omniroute_dialect::{Dialect, anthropic::Anthropic, openai::OpenAi};

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// Continue a conversation.
    Chat,
    /// List models.
    Models,
    /// Describe one model.
    Model {
        /// Its name as the client wrote it, percent-decoded.
        id: String,
    },
    /// CORS asks what is allowed.
    Preflight {
        /// The methods of the path.
        methods: &'static str,
    },
    /// There is no such path below a client prefix.
    NotFound,
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
    /// The same for a client that shows by its headers which shape of lists it reads.
    pub(super) fn for_client(self, headers: &HeaderMap) -> Self {
        match self.operation {
            Operation::Models | Operation::Model { .. } if headers.contains_key("anthropic-version") => {
                Self { dialect: ANTHROPIC, ..self }
            }
            _ => self,
        }
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
    Chat,
    Models,
    /// The rest of the path is a model's name.
    Model,
    /// `{provider}` stands in the path.
    ProviderChat,
}

static OPENAI: &dyn Dialect = &OpenAi;
static ANTHROPIC: &dyn Dialect = &Anthropic;

static ROWS: &[Row] = &[
    Row { path: "/v1/chat/completions", method: "POST", dialect: OPENAI, endpoint: "chat", kind: Kind::Chat },
    Row { path: "/v1/messages", method: "POST", dialect: ANTHROPIC, endpoint: "messages", kind: Kind::Chat },
    Row { path: "/v1/models", method: "GET", dialect: OPENAI, endpoint: "models", kind: Kind::Models },
    Row { path: "/v1/models/", method: "GET", dialect: OPENAI, endpoint: "models", kind: Kind::Model },
    Row {
        path: "/v1/providers/",
        method: "POST",
        dialect: OPENAI,
        endpoint: "chat",
        kind: Kind::ProviderChat,
    },
];

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
    let Some((row, operation, provider)) = ROWS.iter().find_map(|row| row.matches(path)) else {
        if !is_below(path, "/v1") && !is_below(path, "/v1beta") {
            return Found::Elsewhere;
        }
        let dialect = if is_below(path, "/v1/messages") { ANTHROPIC } else { OPENAI };
        return Found::Route(Route { dialect, ..nowhere() });
    };
    let methods = row.methods();
    let operation = if method == Method::OPTIONS {
        Operation::Preflight { methods }
    } else if method.as_str() == row.method || (method == Method::HEAD && row.method == "GET") {
        operation
    } else {
        Operation::MethodNotAllowed { methods }
    };
    Found::Route(Route { operation, dialect: row.dialect, endpoint: row.endpoint, provider })
}

/// The route of paths that are not there.
pub(super) fn nowhere() -> Route {
    Route { operation: Operation::NotFound, dialect: OPENAI, endpoint: "unknown", provider: None }
}

impl Row {
    fn matches(&self, path: &str) -> Option<(&Self, Operation, Option<String>)> {
        match self.kind {
            Kind::Chat => (path == self.path).then_some((self, Operation::Chat, None)),
            Kind::Models => (path == self.path).then_some((self, Operation::Models, None)),
            Kind::Model => {
                let id = decode(path.strip_prefix(self.path).filter(|id| !id.is_empty())?);
                Some((self, Operation::Model { id }, None))
            }
            Kind::ProviderChat => {
                let rest = path.strip_prefix(self.path)?;
                let provider = rest.strip_suffix("/chat/completions")?;
                let is_name = !provider.is_empty() && !provider.contains('/');
                is_name.then(|| (self, Operation::Chat, Some(decode(provider))))
            }
        }
    }

    fn methods(&self) -> &'static str {
        match self.method {
            "GET" => "GET, HEAD, OPTIONS",
            _ => "POST, OPTIONS",
        }
    }
}

/// Percent-decoded; what is not UTF-8 stays as it is and will not be found.
fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(method: &str, path: &str) -> String {
        let path = normal_form(path);
        match find(&path, &Method::from_bytes(method.as_bytes()).unwrap()) {
            Found::Elsewhere => "elsewhere".to_owned(),
            Found::Route(route) => {
                let provider = route.provider.map(|provider| format!(" at {provider}")).unwrap_or_default();
                format!("{} {:?}{provider}", route.dialect.id(), route.operation)
            }
        }
    }

    #[test]
    fn aliases_reach_the_same_route() {
        for path in [
            "/v1/chat/completions",
            "/v1/chat/completions/",
            "/api/v1/chat/completions",
            "/v1/v1/chat/completions",
            "/api/v1/v1/chat/completions/",
        ] {
            assert_eq!(look("POST", path), "openai Chat", "{path}");
        }
    }

    #[test]
    fn the_table() {
        for (method, path, expected) in [
            ("POST", "/v1/messages", "anthropic Chat"),
            ("GET", "/v1/models", "openai Models"),
            ("HEAD", "/v1/models", "openai Models"),
            ("GET", "/v1/models/openai%2Fgpt-4o", "openai Model { id: \"openai/gpt-4o\" }"),
            ("GET", "/v1/models/openai/gpt-4o", "openai Model { id: \"openai/gpt-4o\" }"),
            ("POST", "/v1/providers/openai/chat/completions", "openai Chat at openai"),
            ("POST", "/v1/providers/a/b/chat/completions", "openai NotFound"),
            ("GET", "/v1/messages", "anthropic MethodNotAllowed { methods: \"POST, OPTIONS\" }"),
            ("OPTIONS", "/v1/messages", "anthropic Preflight { methods: \"POST, OPTIONS\" }"),
            ("POST", "/v1/nothing", "openai NotFound"),
            ("POST", "/v1/messages/nothing", "anthropic NotFound"),
            ("GET", "/v1", "openai NotFound"),
            ("GET", "/api/keys", "elsewhere"),
            ("GET", "/", "elsewhere"),
            ("GET", "/v10/x", "elsewhere"),
            ("GET", "/apiv1/models", "elsewhere"),
        ] {
            assert_eq!(look(method, path), expected, "{method} {path}");
        }
    }
}
