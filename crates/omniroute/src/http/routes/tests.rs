use super::*;

fn look(method: &str, path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let path = normal_form(&decoded);
    match find(&path, &Method::from_bytes(method.as_bytes()).unwrap()) {
        Found::Elsewhere => "elsewhere".to_owned(),
        Found::Route(route) => {
            let provider = route.provider.map(|provider| format!(" at {provider}")).unwrap_or_default();
            format!("{} {:?}{provider}", route.dialect.id(), route.operation)
        }
    }
}

#[test]
fn keys_can_be_restricted_by_what_there_is() {
    let endpoints = endpoints();
    for (method, path) in [("POST", "/v1/chat/completions"), ("POST", "/v1/messages"), ("GET", "/v1/models")]
    {
        let Found::Route(route) = find(path, &Method::from_bytes(method.as_bytes()).unwrap()) else {
            panic!("{path} is a client's");
        };
        assert!(endpoints.contains(&route.endpoint), "{path}: {endpoints:?}");
    }
    assert!(endpoints.is_sorted() && !endpoints.contains(&nowhere().endpoint), "{endpoints:?}");
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
        ("POST", "/v1/providers/openai/messages", "anthropic Chat at openai"),
        ("POST", "/v1/providers/openai/responses", "responses Chat at openai"),
        ("GET", "/v1/providers/openai/models", "openai Models at openai"),
        ("POST", "/v1/images/edits", "openai Images { edits: true }"),
        ("POST", "/v1/providers/openai/images/edits", "openai Images { edits: true } at openai"),
        ("GET", "/v1/images/edits", "openai MethodNotAllowed { methods: \"POST, OPTIONS\" }"),
        ("GET", "/v1/messages", "anthropic MethodNotAllowed { methods: \"POST, OPTIONS\" }"),
        ("OPTIONS", "/v1/messages", "anthropic Preflight { methods: \"POST, OPTIONS\" }"),
        ("POST", "/v1/nothing", "openai NotFound"),
        ("POST", "/v1/messages/nothing", "anthropic NotFound"),
        ("POST", "/v1/responses", "responses Chat"),
        ("POST", "/v1/responses/input_tokens", "responses Count"),
        ("GET", "/v1/responses/resp_1", "responses Kept { id: \"resp_1\", call: Read }"),
        ("HEAD", "/api/v1/responses/resp_1/", "responses Kept { id: \"resp_1\", call: Read }"),
        ("DELETE", "/v1/responses/resp_1", "responses Kept { id: \"resp_1\", call: Delete }"),
        ("POST", "/v1/responses/resp_1/cancel", "responses Kept { id: \"resp_1\", call: Cancel }"),
        ("GET", "/v1/responses/resp_1/input_items", "responses Kept { id: \"resp_1\", call: Inputs }"),
        (
            "POST",
            "/v1/responses/resp_1",
            "responses MethodNotAllowed { methods: \"GET, HEAD, DELETE, OPTIONS\" }",
        ),
        (
            "OPTIONS",
            "/v1/responses/resp_1",
            "responses Preflight { methods: \"GET, HEAD, DELETE, OPTIONS\" }",
        ),
        ("GET", "/v1/responses/resp_1/cancel", "responses MethodNotAllowed { methods: \"POST, OPTIONS\" }"),
        ("GET", "/v1/responses/input_tokens", "responses MethodNotAllowed { methods: \"POST, OPTIONS\" }"),
        ("GET", "/v1/responses/resp_1/nothing", "responses NotFound"),
        ("POST", "/v1/messages/count_tokens", "anthropic Count"),
        ("GET", "/v1beta/models", "gemini Models"),
        ("GET", "/v1beta/models/a/b", "gemini Model { id: \"a/b\" }"),
        ("POST", "/v1beta/models/a/b:generateContent", "gemini Chat"),
        ("POST", "/v1beta/models/a%2Fb:streamGenerateContent", "gemini Chat"),
        ("POST", "/v1beta/models/llama3:8b:countTokens", "gemini Count"),
        ("POST", "/v1/models/a:generateContent", "gemini Chat"),
        ("POST", "/v1beta/a/b:generateContent", "gemini Chat"),
        ("GET", "/v1beta/nothing", "gemini NotFound"),
        ("POST", "/v1beta/models/a:embedContents", "gemini NotFound"),
        ("POST", "/v1beta/models/a", "gemini NotFound"),
        ("POST", "/v1beta/nothing", "gemini NotFound"),
        ("DELETE", "/v1beta/models/a", "gemini MethodNotAllowed { methods: \"GET, HEAD, POST, OPTIONS\" }"),
        (
            "OPTIONS",
            "/v1beta/models/a:generateContent",
            "gemini Preflight { methods: \"GET, HEAD, POST, OPTIONS\" }",
        ),
        ("POST", "/api/chat", "ollama Chat"),
        ("POST", "/v1/api/chat", "ollama Chat"),
        ("POST", "/api/generate", "ollama Chat"),
        ("POST", "/v1/api/generate/", "ollama Chat"),
        ("GET", "/api/generate", "ollama MethodNotAllowed { methods: \"POST, OPTIONS\" }"),
        ("POST", "/v1/embeddings", "openai Embed { form: OpenAi, model: None }"),
        ("GET", "/v1/embeddings", "openai ModelsFor(Embeddings)"),
        ("HEAD", "/v1/images/generations", "openai ModelsFor(Images)"),
        ("DELETE", "/v1/embeddings", "openai MethodNotAllowed { methods: \"GET, HEAD, POST, OPTIONS\" }"),
        ("POST", "/api/v1/embeddings/", "openai Embed { form: OpenAi, model: None }"),
        ("POST", "/v1/providers/openai/embeddings", "openai Embed { form: OpenAi, model: None } at openai"),
        ("POST", "/v1beta/models/a/b:embedContent", "gemini Embed { form: GeminiOne, model: Some(\"a/b\") }"),
        ("POST", "/v1/models/m:batchEmbedContents", "gemini Embed { form: GeminiBatch, model: Some(\"m\") }"),
        ("POST", "/v1/images/generations", "openai Images { edits: false }"),
        ("POST", "/v1/providers/xai/images/generations", "openai Images { edits: false } at xai"),
        ("POST", "/api/v1/audio/transcriptions/", "openai Transcribe { translates: false }"),
        ("POST", "/v1/providers/dg/audio/transcriptions", "openai Transcribe { translates: false } at dg"),
        ("POST", "/v1/audio/translations", "openai Transcribe { translates: true }"),
        ("POST", "/v1/audio/speech", "openai Speech"),
        ("POST", "/api/embed", "ollama Embed { form: Ollama, model: None }"),
        ("POST", "/v1/api/embeddings", "ollama Embed { form: OllamaOne, model: None }"),
        ("POST", "/api/v1/api/chat", "ollama Chat"),
        ("GET", "/api/tags", "ollama Models"),
        ("GET", "/v1/api/tags", "ollama Models"),
        ("POST", "/api/show", "ollama Show"),
        ("GET", "/api/ps", "ollama Loaded"),
        ("GET", "/api/version", "ollama Version"),
        ("GET", "/api/chat", "ollama MethodNotAllowed { methods: \"POST, OPTIONS\" }"),
        ("GET", "/v1", "openai NotFound"),
        ("GET", "/api/keys", "elsewhere"),
        ("GET", "/", "elsewhere"),
        ("GET", "/v10/x", "elsewhere"),
        ("GET", "/apiv1/models", "elsewhere"),
    ] {
        assert_eq!(look(method, path), expected, "{method} {path}");
    }
}
