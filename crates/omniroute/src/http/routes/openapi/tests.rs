use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;

use super::super::{Found, Operation, find};
use super::*;
use crate::http::cors::EXPOSED_HEADERS;

fn whole() -> Value {
    serde_json::to_value(document("1.2.3")).unwrap()
}

/// Client operations of the document: method, path and description.
fn clients(document: &Value) -> Vec<(Method, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let tag = operation["tags"][0].as_str().unwrap();
            if tag.starts_with("Clients") {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                found.push((method, path.clone(), operation.clone()));
            }
        }
    }
    found
}

fn operation_at(method: &Method, path: &str) -> Option<Operation> {
    match find(path, method) {
        Found::Route(route) => Some(route.operation),
        Found::Elsewhere => None,
    }
}

#[test]
fn every_client_path_of_the_document_is_one() {
    let document = whole();
    for (method, path, _) in clients(&document) {
        let filled = path.replace("{model}", "a/b").replace("{provider}", "openai").replace("{id}", "resp_1");
        let operation = operation_at(&method, &filled);
        assert!(
            operation.as_ref().is_some_and(|found| {
                !matches!(
                    found,
                    Operation::NotFound | Operation::MethodNotAllowed { .. } | Operation::Gone { .. }
                )
            }),
            "{method} {path}: {operation:?}"
        );
    }
}

#[test]
fn every_row_of_the_table_is_in_the_document() {
    let document = whole();
    let told: BTreeSet<_> =
        clients(&document).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    for row in ROWS {
        let is_left_out = matches!(row.kind, Kind::BareAction | Kind::Exact(Simple::Gone { .. }));
        let begins = format!("{} {}", row.method, row.path);
        let is_told = match row.kind {
            Kind::Exact(_) => told.contains(&begins),
            _ => told.iter().any(|line| line.starts_with(&format!("{begins}{{"))),
        };
        assert_eq!(is_told, !is_left_out, "{begins}");
    }
    for line in ["POST /v1beta/models/{model}:streamGenerateContent", "GET /v1/responses/{id}/input_items"] {
        assert!(told.contains(line), "{line} is not in {told:?}");
    }
}

/// What clients that are made from the document rely on.
#[test]
fn the_document_is_one_that_programs_can_read() {
    let document = whole();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{method} {path}: `{id}` is there twice");
        }
    }
    for (method, path, operation) in clients(&document) {
        let case = format!("{method} {path}");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{case}");
        let docs = operation["externalDocs"]["url"].as_str().unwrap();
        assert!(docs.starts_with("https://") && !docs.ends_with(".com"), "{case}: {docs}");
        assert_eq!(
            operation.get("requestBody").is_some(),
            method == Method::POST && !path.ends_with("/cancel"),
            "{case}"
        );
        let named: BTreeSet<_> =
            path.split('{').filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let told = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let told: BTreeSet<_> = told.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(told, named, "{case}");
        let follow = |reference: &Value| {
            let pointer = reference["$ref"].as_str().unwrap().trim_start_matches('#').to_owned();
            document.pointer(&pointer).unwrap_or_else(|| panic!("{case}: {pointer} leads nowhere"))
        };
        let error = follow(&operation["responses"]["default"]);
        let shape = follow(&error["content"]["application/json"]["schema"]);
        assert!(shape["properties"].get("error").is_some(), "{case}: {shape}");
        for scheme in operation["security"].as_array().unwrap() {
            let name = scheme.as_object().unwrap().keys().next().unwrap();
            assert!(document["components"]["securitySchemes"].get(name).is_some(), "{case}: {name}");
        }
    }
    let said = &document["paths"]["/v1/chat/completions"]["post"];
    assert_eq!(
        said["requestBody"]["content"]["application/json"]["schema"]["required"],
        serde_json::json!(["model", "messages"])
    );
    assert!(said["responses"]["200"]["content"].get("text/event-stream").is_some());
}

#[test]
fn every_header_of_ours_is_told() {
    let told = headers::TOLD.iter().chain(headers::FAILED).map(|(name, _)| *name);
    let told: BTreeSet<_> = told.collect();
    let exposed = EXPOSED_HEADERS.split(", ").filter(|name| name.starts_with("X-OmniRoute-"));
    for name in exposed {
        assert!(told.contains(name), "{name}");
    }
}

#[test]
fn lists_take_what_their_handlers_read() {
    let document = whole();
    let query = |path: &str| -> Vec<String> {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let query = parameters.iter().filter(|parameter| parameter["in"] == "query");
        query.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
    };
    let pages = ["limit", "after_id", "before_id", "pageSize", "pageToken"];
    assert_eq!(query("/v1/models")[2..], pages);
    assert_eq!(query("/v1/models")[..2], ["type", "provider"]);
    assert_eq!(query("/v1/providers/{provider}/models")[..2], ["type", "limit"], "the path names it");
    assert_eq!(query("/v1/embeddings")[..2], ["provider", "limit"], "the path says what they are for");
    assert_eq!(query("/v1beta/models"), ["type", "provider", "pageSize", "pageToken"]);
    assert_eq!(query("/api/tags"), ["type", "provider"]);
    assert!(query("/v1/models/{model}").is_empty());
    let body = |path: &str| {
        let body = &document["paths"][path]["post"]["requestBody"];
        body["content"]["application/json"]["schema"]["required"].clone()
    };
    assert_eq!(body("/api/chat"), serde_json::json!(["model"]), "without messages the model is loaded");
    assert_eq!(body("/api/show"), Value::Null, "`name` will do");
}
