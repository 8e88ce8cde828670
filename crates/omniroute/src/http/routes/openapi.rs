//! The OpenAPI document of everything that is served: the client routes, out of their table, beside those of management.
//!
//! Vendors describe their own formats, and more exactly than a copy could. What is told here is which of them is spoken
//! where, what must be there, what the gateway adds, and how errors look.

mod errors;
mod forms;
mod headers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use omniroute_dialect::KeptCall;
use utoipa::openapi::external_docs::ExternalDocs;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::Components;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, OpenApi, PathItem, Ref, Required, Type};

use self::forms::Form;
use super::{Kind, Lists, ROWS, Row, Simple, lists};

/// What a path can end in, behind a model's name and a colon.
const ACTIONS: [(&str, Simple); 5] = [
    ("generateContent", Simple::Chat),
    ("streamGenerateContent", Simple::Chat),
    ("countTokens", Simple::Count),
    ("embedContent", Simple::Embed(super::Form::GeminiOne)),
    ("batchEmbedContents", Simple::Embed(super::Form::GeminiBatch)),
];
/// Where a key is sent besides `Authorization: Bearer`. Any place will do on any route.
const KEY_HEADERS: [&str; 2] = ["x-api-key", "x-goog-api-key"];

/// The whole document, as `/api/openapi.json` and `omniroute openapi` give it.
pub(crate) fn document(version: &str) -> OpenApi {
    let mut document = omniroute_admin::openapi(version);
    "OmniRoute".clone_into(&mut document.info.title);
    let mut paths = BTreeMap::<String, PathItem>::new();
    for row in ROWS {
        for (path, form) in row.described() {
            let item = PathItem::new(row.http_method(), operation(row, &path, &form));
            paths.entry(path).or_default().merge_operations(item);
        }
    }
    document.paths.paths.extend(paths);
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.extend(errors::schemas());
    components.responses.extend(errors::responses());
    for name in KEY_HEADERS {
        let header = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name)));
        components.add_security_scheme(name, header);
    }
    document
}

impl Row {
    /// Its paths as templates, and what is sent and answered there. None for what vendors had once, and for other ways to
    /// write a path.
    fn described(&self) -> Vec<(String, Form)> {
        let of = |simple, path: String| {
            let form = forms::of(self.dialect, simple, &path);
            (path, form)
        };
        match self.kind {
            Kind::Exact(Simple::Gone { .. }) | Kind::BareAction => Vec::new(),
            Kind::Exact(simple) => vec![of(simple, self.path.to_owned())],
            Kind::Provider(rest, simple) => vec![of(simple, format!("{}{{provider}}{rest}", self.path))],
            Kind::Model => vec![(format!("{}{{model}}", self.path), forms::one_model(self.dialect))],
            Kind::ModelAction => ACTIONS
                .iter()
                .map(|(action, simple)| of(*simple, format!("{}{{model}}:{action}", self.path)))
                .collect(),
            Kind::Kept(call) => {
                let rest = match call {
                    KeptCall::Read | KeptCall::Delete => "",
                    KeptCall::Cancel => "/cancel",
                    KeptCall::Inputs => "/input_items",
                };
                vec![(format!("{}{{id}}{rest}", self.path), forms::kept(call))]
            }
        }
    }

    fn http_method(&self) -> HttpMethod {
        match self.method {
            "POST" => HttpMethod::Post,
            "DELETE" => HttpMethod::Delete,
            _ => HttpMethod::Get,
        }
    }
}

fn operation(row: &Row, path: &str, form: &Form) -> Operation {
    let tag = match lists(row.dialect) {
        Lists::OpenAi => "Clients: OpenAI",
        Lists::Anthropic => "Clients: Anthropic",
        Lists::Google => "Clients: Google",
        Lists::Ollama => "Clients: Ollama",
    };
    let mut operation = OperationBuilder::new()
        .tag(tag)
        .summary(Some(form.summary))
        .operation_id(Some(operation_id(row.method, path)));
    for parameter in parameters(path, form) {
        operation = operation.parameter(parameter);
    }
    if !form.takes.is_empty() {
        operation = operation.request_body(Some(body(form)));
    }
    for scheme in ["bearer", KEY_HEADERS[0], KEY_HEADERS[1]] {
        operation = operation.security(SecurityRequirement::new(scheme, [] as [&str; 0]));
    }
    let failed = Ref::from_response_name(errors::name(row.dialect));
    let mut operation = operation.response("200", answer(form)).response("default", failed).build();
    let mut vendor = ExternalDocs::new(form.address());
    vendor.description = Some("Where the vendor describes it".to_owned());
    operation.external_docs = Some(vendor);
    operation
}

/// The parts of the path that vary, the query and the headers.
fn parameters(path: &str, form: &Form) -> Vec<Parameter> {
    let text = || Some(ObjectBuilder::new().schema_type(Type::String).build());
    let parameter = |name: &str, about: &str, place, is_required| {
        let required = if is_required { Required::True } else { Required::False };
        let parameter = ParameterBuilder::new().name(name).description(Some(about)).parameter_in(place);
        parameter.required(required).schema(text()).build()
    };
    let in_path = [
        ("provider", "A provider's id, one of its aliases, or a node's prefix"),
        (
            "model",
            "A combo, an alias, `provider/model` or a model's own name; its `/` may be as it is or `%2F`",
        ),
        ("id", "The answer's id"),
    ];
    let varies = in_path.iter().filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    let varies = varies.map(|(name, about)| parameter(name, about, ParameterIn::Path, true));
    let query = form.query.iter().map(|(name, about)| parameter(name, about, ParameterIn::Query, false));
    let sent = if form.takes.is_empty() { &[] } else { headers::SENT };
    let sent = sent.iter().map(|(name, about)| parameter(name, about, ParameterIn::Header, false));
    varies.chain(query).chain(sent).collect()
}

fn body(form: &Form) -> RequestBody {
    let mut body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .description(Some("As the vendor describes it. Members that are not named here are sent on"));
    for kind in form.takes {
        body = body.content(*kind, ContentBuilder::new().schema(Some(form.body())).build());
    }
    body.build()
}

fn answer(form: &Form) -> Response {
    let mut answer = ResponseBuilder::new().description("As the vendor describes it");
    for kind in form.answers {
        let shape = if *kind == "application/json" { Type::Object } else { Type::String };
        let schema = ObjectBuilder::new().schema_type(shape).build();
        answer = answer.content(*kind, ContentBuilder::new().schema(Some(schema)).build());
    }
    let told = if form.takes.is_empty() { &headers::TOLD[..1] } else { headers::TOLD };
    with_headers(answer, told)
}

fn with_headers(mut response: ResponseBuilder, told: &[(&str, &str)]) -> Response {
    for (name, about) in told {
        response = response.header(*name, HeaderBuilder::new().description(Some(*about)).build());
    }
    response.build()
}

/// A name for the operation that no other has: the method and the words of the path.
fn operation_id(method: &str, path: &str) -> String {
    let mut id = format!("client_{}", method.to_ascii_lowercase());
    for word in path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        id.push('_');
        id.push_str(word);
    }
    id
}
