//! Vectors in three forms: shapes of answers, and what is refused.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::*;

async fn post(path: &str, body: Value) -> Answer {
    let dialect = match path {
        _ if path.starts_with("/api/") => Dialect::Ollama,
        _ if path.contains(':') => Dialect::Gemini,
        _ => Dialect::Chat,
    };
    let request = Request::post(path)
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-test")
        .header("x-goog-api-key", "sk-test")
        .body(Bytes::from(body.to_string()))
        .unwrap();
    send(&simulator(), dialect, request).await
}

fn values(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn the_same_vectors_in_every_form() {
    let openai = post("/v1/embeddings", json!({"model": "embed", "input": ["hello", "world"]})).await.json();
    let first = &openai["data"][0]["embedding"];
    assert_eq!((values(first).len(), openai["data"][1]["index"].as_u64()), (8, Some(1)));
    assert_eq!(openai["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    let content = json!({"parts": [{"text": "hello"}]});
    let one = post("/v1beta/models/embed:embedContent", json!({"content": content})).await.json();
    assert_eq!(&one["embedding"]["values"], first);
    let batch = json!({"requests": [{"model": "models/embed", "content": content}]});
    let batch = post("/v1beta/models/embed:batchEmbedContents", batch).await.json();
    assert_eq!(&batch["embeddings"][0]["values"], first);
    let ollama = post("/api/embed", json!({"model": "embed", "input": "hello"})).await.json();
    assert_eq!((&ollama["embeddings"][0], &ollama["prompt_eval_count"]), (first, &json!(2)));
    let old = post("/api/embeddings", json!({"model": "embed", "prompt": "hello"})).await.json();
    assert_eq!(&old["embedding"], first);
}

#[tokio::test]
async fn texts_that_are_alike_are_near() {
    let texts = ["how is the weather today", "how is the weather now", "invoices are due in March"];
    let body = json!({"model": "embed-dims-256", "input": texts});
    let answer = post("/v1/embeddings", body).await.json();
    let vectors: Vec<_> = (0..3).map(|at| values(&answer["data"][at]["embedding"])).collect();
    assert!((product(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-4);
    assert!(product(&vectors[0], &vectors[1]) > 0.6 && product(&vectors[0], &vectors[2]) < 0.4);
}

#[tokio::test]
async fn base64_only_where_it_is_asked_for() {
    let ask =
        |model: &str| json!({"model": model, "input": "hello", "encoding_format": "base64", "dimensions": 2});
    let packed = post("/v1/embeddings", ask("embed")).await.json();
    let bytes = BASE64_STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_eq!(bytes.len(), 8);
    let floats = post("/v1/embeddings", ask("embed-floats")).await.json();
    assert_eq!(values(&floats["data"][0]["embedding"]).len(), 2);
    let jumbled =
        post("/v1/embeddings", json!({"model": "jumbled-nousage", "input": ["a", "b"]})).await.json();
    assert_eq!((&jumbled["data"][0]["index"], jumbled.get("usage")), (&json!(1), None));
}

#[tokio::test]
async fn failures_are_scripted_as_for_conversations() {
    for (model, status) in
        [("error-429", 429), ("embed-error-500", 500), ("error-in-200", 200), ("nothing", 404)]
    {
        assert_eq!(
            post("/v1/embeddings", json!({"model": model, "input": "a"})).await.status,
            status,
            "{model}"
        );
    }
    assert!(post("/v1/embeddings", json!({"model": "cut-1", "input": "a"})).await.broken);
    let long = post("/v1/embeddings", json!({"model": "window-2", "input": "twelve chars"})).await;
    assert_eq!(long.json()["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn what_vendors_refuse_is_refused() {
    let content = json!({"parts": [{"text": "a"}]});
    let many = vec!["a"; 2_049];
    let hundred = vec![json!({"model": "models/embed", "content": content}); 101];
    for (path, body, word) in [
        ("/v1/embeddings", json!({"model": "embed"}), "input"),
        ("/v1/embeddings", json!({"model": "embed", "input": ""}), "input"),
        ("/v1/embeddings", json!({"model": "embed", "input": []}), "input"),
        ("/v1/embeddings", json!({"model": "embed", "input": ["a", ""]}), "input[1]"),
        ("/v1/embeddings", json!({"model": "embed", "input": many}), "2048"),
        ("/v1/embeddings", json!({"model": "embed", "input": "a", "input_type": "query"}), "input_type"),
        ("/v1/embeddings", json!({"model": "embed", "input": "a", "encoding_format": "hex"}), "hex"),
        ("/v1/embeddings", json!({"model": "embed", "input": "a", "dimensions": 0}), "dimensions"),
        ("/v1/embeddings", json!({"model": "embed", "input": [1, "a"]}), "input[1]"),
        ("/v1beta/models/embed:embedContent", json!({"content": content, "x": 1}), "\"x\""),
        (
            "/v1beta/models/embed:embedContent",
            json!({"content": content, "title": "t"}),
            "RETRIEVAL_DOCUMENT",
        ),
        ("/v1beta/models/embed:embedContent", json!({"content": {"parts": [{"text": ""}]}}), "empty"),
        ("/v1beta/models/embed:batchEmbedContents", json!({"requests": [{"content": content}]}), "model"),
        (
            "/v1beta/models/embed:batchEmbedContents",
            json!({"requests": [{"model": "models/other", "content": content}]}),
            "models/embed",
        ),
        ("/v1beta/models/embed:batchEmbedContents", json!({"requests": hundred}), "100"),
        ("/api/embed", json!({"model": "embed", "input": 1}), "input"),
        ("/api/embed", json!({"model": "embed-strict", "input": "a", "x": 1}), "x"),
    ] {
        let answer = post(path, body.clone()).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert!(answer.message().contains(word), "{}", answer.message());
    }
    let empty = post("/api/embed", json!({"model": "embed", "input": ""})).await.json();
    assert_eq!(empty["embeddings"], json!([]));
}
