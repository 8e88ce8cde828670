//! How errors look, by the dialect of the route.

use omniroute_dialect::Dialect;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ArrayBuilder, Schema, SchemaType};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Type};

use super::super::{Lists, lists};
use super::{headers, with_headers};

/// The name of the answer that an error is for clients of the dialect, and of its shape.
pub(super) fn name(dialect: &dyn Dialect) -> &'static str {
    match lists(dialect) {
        Lists::OpenAi => "OpenAiError",
        Lists::Anthropic => "AnthropicError",
        Lists::Google => "GoogleError",
        Lists::Ollama => "OllamaError",
    }
}

/// Those answers.
pub(super) fn responses() -> impl Iterator<Item = (String, RefOr<Response>)> {
    schemas().into_iter().map(|(name, _)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(&name))).build();
        let told = "Not done: what was wrong, where, and what to do, in the vendor's shape";
        let error = ResponseBuilder::new().description(told).content("application/json", content);
        (name, with_headers(error, headers::FAILED).into())
    })
}

/// Their shapes.
pub(super) fn schemas() -> [(String, RefOr<Schema>); 4] {
    let attempt = object(
        "Somebody who was asked",
        [
            ("provider", text("The provider's id")),
            ("model", text("Which of its models")),
            ("status", nullable(Type::Integer, "What it answered with; null where there was no answer")),
            ("code", text("Its code for it, or a word of the gateway's")),
            ("reason", text("The same in words")),
        ],
    );
    let attempts = ArrayBuilder::new().items(attempt).description(Some("Oldest first"));
    let details = object(
        "Where others were asked before: who they were, and when it is worth to ask again",
        [
            ("attempts", attempts.into()),
            ("retry_at", nullable(Type::String, "When the first of them can be asked again (RFC 3339)")),
            ("request_id", text("The id of the request, as in the log")),
        ],
    );
    let openai = object(
        "The error",
        [
            ("message", text("What was wrong, where, and what to do")),
            ("type", text("The class of error")),
            ("param", nullable(Type::String, "The member that is wrong")),
            ("code", text("Which error it is")),
            ("omniroute", details),
        ],
    );
    let anthropic = object(
        "The error",
        [
            ("type", text("The class of error")),
            ("message", text("What was wrong, where, and what to do; at the end who was asked")),
        ],
    );
    let details = ArrayBuilder::new().description(Some("More of it, by `@type`"));
    let google = object(
        "The error",
        [
            ("code", ObjectBuilder::new().schema_type(Type::Integer).description(Some("The status")).into()),
            ("message", text("What was wrong, where, and what to do; at the end who was asked")),
            ("status", text("The class of error")),
            ("details", details.items(ObjectBuilder::new().schema_type(Type::Object)).into()),
        ],
    );
    let anthropic = [("type", text("`error`")), ("error", anthropic), ("request_id", text("As in the log"))];
    [
        ("OpenAiError", object("An error for clients of OpenAI's formats", [("error", openai)])),
        ("AnthropicError", object("An error for clients of Anthropic", anthropic)),
        ("GoogleError", object("An error for clients of Google", [("error", google)])),
        (
            "OllamaError",
            object(
                "An error for clients of Ollama",
                [("error", text("What was wrong; at the end who was asked"))],
            ),
        ),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
}

fn object<const N: usize>(about: &str, members: [(&str, RefOr<Schema>); N]) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new().schema_type(Type::Object).description(Some(about));
    for (name, schema) in members {
        object = object.property(name, schema);
        // The one member that is there at times only.
        if name != "omniroute" {
            object = object.required(name);
        }
    }
    object.into()
}

fn text(about: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about)).into()
}

fn nullable(kind: Type, about: &str) -> RefOr<Schema> {
    let kind = SchemaType::from_iter([kind, Type::Null]);
    ObjectBuilder::new().schema_type(kind).description(Some(about)).into()
}
