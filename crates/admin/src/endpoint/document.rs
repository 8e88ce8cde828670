//! The OpenAPI document, made from the types of handlers.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{Components, Schema};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ContentBuilder, Info, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Paths, Ref, RefOr, Required, Type,
};
use utoipa::{IntoParams, ToSchema};

use crate::error::ErrorBody;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Public,
    /// Who manages the gateway.
    Management,
    /// Who manages it, reads metrics, or is on the same machine.
    Metrics,
}

/// The documentation of one route while it is made.
#[derive(Default)]
pub(crate) struct Describe {
    access: Option<Access>,
    parameters: Vec<Parameter>,
    body: Option<(RefOr<Schema>, bool)>,
    answers: Vec<(StatusCode, &'static str, RefOr<Schema>)>,
    tells_version: bool,
    asks_version: bool,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// The whole document while it is made.
#[derive(Default)]
pub(crate) struct Documentation {
    paths: BTreeMap<String, PathItem>,
    schemas: BTreeMap<String, RefOr<Schema>>,
}

impl Describe {
    pub(crate) fn access(&mut self, access: Access) {
        self.access = Some(access);
    }

    pub(crate) fn takes<T: ToSchema>(&mut self, is_required: bool) {
        self.body = Some((self.schema_of::<T>(), is_required));
    }

    pub(crate) fn filters<T: IntoParams>(&mut self) {
        self.parameters.extend(T::into_params(|| Some(ParameterIn::Query)));
    }

    pub(crate) fn has_id(&mut self) {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let id = ParameterBuilder::new().name("id").parameter_in(ParameterIn::Path).required(Required::True);
        self.parameters.push(id.schema(Some(text)).build());
    }

    pub(crate) fn answers<T: ToSchema>(&mut self, status: StatusCode) {
        let schema = self.schema_of::<T>();
        self.answers.push((status, "application/json", schema));
    }

    pub(crate) fn resumes(&mut self) {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let id = ParameterBuilder::new().name("Last-Event-ID").parameter_in(ParameterIn::Header);
        self.parameters.push(id.required(Required::False).schema(Some(text)).build());
    }

    /// The answer has an `ETag`.
    pub(crate) fn tells_version(&mut self) {
        self.tells_version = true;
    }

    /// An `If-Match` that names another version is answered with 409.
    pub(crate) fn asks_version(&mut self) {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        let versions = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .description(Some("Versions as `ETag` tells them: only one of these is changed; `*` is any"))
            .required(Required::False);
        self.parameters.push(versions.schema(Some(text)).build());
        self.asks_version = true;
    }

    pub(crate) fn answers_events(&mut self) {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        self.answers.push((StatusCode::OK, "text/event-stream", text.into()));
    }

    pub(crate) fn answers_text(&mut self) {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        self.answers.push((StatusCode::OK, "text/plain", text.into()));
    }

    fn schema_of<T: ToSchema>(&mut self) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        let name = T::name();
        // Containers have no name of their own.
        if matches!(name.as_ref(), "Vec" | "BTreeMap" | "String" | "Value" | "OpenApi") {
            return T::schema();
        }
        self.schemas.push((name.to_string(), T::schema()));
        Ref::from_schema_name(name).into()
    }

    fn operation(self, path: &str, method: &Method, summary: &str) -> Operation {
        let mut operation = OperationBuilder::new()
            .tag(tag_of(path))
            .summary(Some(summary))
            .operation_id(Some(operation_id(path, method)));
        for parameter in self.parameters {
            operation = operation.parameter(parameter);
        }
        if let Some((schema, is_required)) = self.body {
            let required = if is_required { Required::True } else { Required::False };
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let body =
                RequestBodyBuilder::new().content("application/json", content).required(Some(required));
            operation = operation.request_body(Some(body.build()));
        }
        for (status, content_type, schema) in self.answers {
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let mut response = ResponseBuilder::new()
                .description(status.canonical_reason().unwrap_or("Done"))
                .content(content_type, content);
            if self.tells_version {
                let tag = HeaderBuilder::new().description(Some("Its version, for `If-Match`"));
                response = response.header("ETag", tag.build());
            }
            operation = operation.response(status.as_str(), response.build());
        }
        let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        if self.asks_version {
            let told = "There is another version than `If-Match` names, or the state does not allow it";
            let conflict =
                ResponseBuilder::new().description(told).content("application/json", error.clone());
            operation = operation.response("409", conflict.build());
        }
        let error = ResponseBuilder::new().description("Not done").content("application/json", error);
        operation = operation.response("default", error.build());
        if self.access.is_some_and(|access| access != Access::Public) {
            for scheme in ["session", "bearer"] {
                operation = operation.security(SecurityRequirement::new(scheme, [] as [&str; 0]));
            }
        }
        operation.build()
    }
}

impl Documentation {
    pub(crate) fn add(&mut self, path: &str, method: &Method, summary: &str, mut route: Describe) {
        for (name, schema) in std::mem::take(&mut route.schemas) {
            let known = self.schemas.get(&name);
            debug_assert!(known.is_none_or(|known| *known == schema), "two types are called `{name}`");
            self.schemas.insert(name, schema);
        }
        let operation = route.operation(path, method, summary);
        let item = self.paths.entry(path.to_owned()).or_default();
        item.merge_operations(PathItem::new(http_method(method), operation));
    }

    pub(crate) fn finish(mut self, version: &str) -> OpenApi {
        let mut errors = Vec::new();
        ErrorBody::schemas(&mut errors);
        errors.push((ErrorBody::name().into_owned(), <ErrorBody as utoipa::PartialSchema>::schema()));
        self.schemas.extend(errors);
        let mut components = Components::new();
        components.schemas.extend(self.schemas);
        components.add_security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(crate::auth::COOKIE))),
        );
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        let mut paths = Paths::new();
        paths.paths.extend(self.paths);
        OpenApiBuilder::new()
            .info(Info::new("OmniRoute management API", version))
            .paths(paths)
            .components(Some(components))
            .build()
    }
}

/// The part of the path that names the resource.
fn tag_of(path: &str) -> &str {
    path.trim_start_matches("/api/").trim_start_matches('/').split('/').next().unwrap_or("system")
}

fn operation_id(path: &str, method: &Method) -> String {
    let words = path.split(['/', '-', '.']).filter(|part| !part.is_empty() && *part != "api");
    let mut id = method.as_str().to_ascii_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word.trim_matches(['{', '}']));
    }
    id
}

fn http_method(method: &Method) -> HttpMethod {
    match method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}
