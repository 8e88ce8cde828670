//! Sound and pictures: what is judged, what is answered, what goes wrong.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use omniroute_sim::{Access, SimBody, Simulator};
use serde_json::{Value, json};

/// Half a second of a tone, or of nothing.
fn wav(is_silent: bool) -> Vec<u8> {
    let mut file =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\x00\x7d\0\0\x02\0\x10\0data".to_vec();
    file.extend(16_000u32.to_le_bytes());
    for at in 0..8000 {
        let sample: i16 = if is_silent {
            0
        } else if at % 40 < 20 {
            8000
        } else {
            -8000
        };
        file.extend(sample.to_le_bytes());
    }
    file
}

fn form(fields: &[(&str, &str)], filename: &str, file: &[u8]) -> Vec<u8> {
    form_of(fields, &[("file", filename, "audio/wav", file)])
}

/// A form with files: the field's name, the file's, its type and itself.
fn form_of(fields: &[(&str, &str)], files: &[(&str, &str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.as_bytes());
    }
    for (name, filename, content_type, file) in files {
        let head = format!(
            "--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\nContent-Type: {content_type}\r\n\r\n"
        );
        body.extend(head.as_bytes());
        body.extend(*file);
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    body
}

struct Said {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

async fn send(
    simulator: &Simulator,
    method: &str,
    path: &str,
    auth: &str,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Said {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", auth)
        .header("x-goog-api-key", "k")
        .header("content-type", content_type)
        .header("host", "sim:1")
        .body(body.into())
        .unwrap();
    let response: Response<SimBody> = simulator.respond(request).await;
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let status = response.status().as_u16();
    Said { status, content_type, body: response.into_body().collect().await.unwrap().to_bytes().to_vec() }
}

fn simulator() -> Simulator {
    Simulator::new(Access::KeyNeeded)
}

async fn transcript(path: &str, fields: &[(&str, &str)], filename: &str, file: &[u8]) -> Said {
    let body = form(fields, filename, file);
    send(&simulator(), "POST", path, "Bearer k", "multipart/form-data; boundary=B", body).await
}

#[tokio::test]
async fn openai_transcripts_in_every_format() {
    let path = "/v1/audio/transcriptions";
    let said = transcript(path, &[("model", "whisper-1")], "a.wav", &wav(false)).await;
    let text = said.json()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("I heard 16044 bytes of wav with the sum "), "{text}");
    for (format, content_type, begins) in [
        ("text", "text/plain; charset=utf-8", "I heard"),
        ("srt", "text/plain; charset=utf-8", "1\n00:00:00,000 --> 00:00:00,500\nI heard"),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\nI heard"),
        ("verbose_json", "application/json", "{"),
    ] {
        let fields = [("model", "whisper-1"), ("response_format", format)];
        let said = transcript(path, &fields, "a.wav", &wav(false)).await;
        assert_eq!((said.status, said.content_type.as_str()), (200, content_type), "{format}");
        assert!(said.text().starts_with(begins), "{}", said.text());
    }
    let silent = transcript(path, &[("model", "whisper-1")], "a.wav", &wav(true)).await;
    assert_eq!(silent.json()["text"], "");
}

#[tokio::test]
async fn openai_forms_are_judged() {
    for (path, fields, filename, file, status, says) in [
        ("/v1/audio/transcriptions", &[("model", "nothing")][..], "a.wav", &wav(false)[..], 404, "nothing"),
        ("/v1/audio/transcriptions", &[], "a.wav", b"x", 400, "model"),
        ("/v1/audio/transcriptions", &[("model", "whisper-1"), ("x", "1")], "a.wav", b"x", 400, "'x'"),
        ("/v1/audio/transcriptions", &[("model", "whisper-1")], "a.txt", b"x", 400, "file format"),
        ("/v1/audio/transcriptions", &[("model", "whisper-1")], "a.wav", b"", 400, "empty"),
        (
            "/v1/audio/transcriptions",
            &[("model", "gpt-4o-transcribe"), ("response_format", "srt")],
            "a.wav",
            b"x",
            400,
            "response_format",
        ),
        (
            "/groq/v1/audio/transcriptions",
            &[("model", "whisper-large-v3"), ("response_format", "vtt")],
            "a.wav",
            b"x",
            400,
            "response_format",
        ),
        (
            "/v1/audio/translations",
            &[("model", "whisper-1"), ("language", "de")],
            "a.wav",
            b"x",
            400,
            "language",
        ),
        ("/v1/audio/transcriptions", &[("model", "whisper-1,error-500")], "a.wav", b"x", 500, "status 500"),
    ] {
        let said = transcript(path, fields, filename, file).await;
        assert_eq!(said.status, status, "{}", said.text());
        assert!(said.text().contains(says), "{}", said.text());
    }
}

#[tokio::test]
async fn deepgram() {
    let simulator = simulator();
    let ask = async |query: &str, auth: &str, kind: &str, body: Vec<u8>| {
        send(&simulator, "POST", &format!("/v1/listen?{query}"), auth, kind, body).await
    };
    let good = "model=nova-3&smart_format=true&punctuate=true&utterances=true&detect_language=true";
    let said = ask(good, "Token k", "audio/wav", wav(false)).await.json();
    let channel = &said["results"]["channels"][0];
    assert!(channel["alternatives"][0]["transcript"].as_str().unwrap().starts_with("I heard 16044"));
    assert_eq!(
        (channel["detected_language"].as_str(), said["metadata"]["duration"].as_f64()),
        (Some("en"), Some(0.5))
    );
    assert_eq!(said["results"]["utterances"].as_array().unwrap().len(), 1);
    let film = ask(good, "Token k", "video/mp4", wav(false)).await.json();
    assert_eq!(film["results"]["channels"][0]["alternatives"][0]["transcript"], "");
    for (query, auth, kind, body, status, code) in [
        (good, "Bearer k", "audio/wav", wav(false), 401, "INVALID_AUTH"),
        ("model=nova-9", "Token k", "audio/wav", wav(false), 400, "Bad Request"),
        ("model=nova-3&prompt=x", "Token k", "audio/wav", wav(false), 400, "Bad Request"),
        (
            "model=nova-3&language=de&detect_language=true",
            "Token k",
            "audio/wav",
            wav(false),
            400,
            "Bad Request",
        ),
        (good, "Token k", "audio/wav", b"noise".to_vec(), 400, "Bad Request"),
        (good, "Token k", "application/json", wav(false), 400, "Bad Request"),
        (good, "Token sk-broke", "audio/wav", wav(false), 402, "ASR_PAYMENT_REQUIRED"),
        ("model=error-503", "Token k", "audio/wav", wav(false), 503, "STATUS_503"),
    ] {
        let said = ask(query, auth, kind, body).await;
        assert_eq!((said.status, said.json()["err_code"].as_str()), (status, Some(code)), "{}", said.text());
    }
}

#[tokio::test]
async fn assemblyai() {
    let simulator = simulator();
    let ask = async |method: &str, path: &str, auth: &str, body: Vec<u8>| {
        send(&simulator, method, path, auth, "application/json", body).await
    };
    let order = |value: Value| value.to_string().into_bytes();
    assert_eq!(ask("POST", "/v2/upload", "Bearer k", wav(false)).await.status, 401);
    let url = ask("POST", "/v2/upload", "k", wav(false)).await.json()["upload_url"].clone();
    let ordered =
        ask("POST", "/v2/transcript", "k", order(json!({"audio_url": url, "speech_models": ["best"]}))).await;
    let id = ordered.json()["id"].as_str().unwrap().to_owned();
    let look = format!("/v2/transcript/{id}");
    for status in ["processing", "completed", "completed"] {
        assert_eq!(ask("GET", &look, "k", Vec::new()).await.json()["status"], status);
    }
    let done = ask("GET", &look, "k", Vec::new()).await.json();
    assert!(done["text"].as_str().unwrap().starts_with("I heard 16044"));
    assert_eq!((done["language_code"].as_str(), done["words"][0]["start"].as_u64()), (Some("en"), Some(0)));
    assert_eq!(ask("DELETE", &look, "k", Vec::new()).await.status, 200);
    assert_eq!(ask("GET", &look, "k", Vec::new()).await.status, 400);
    let listed = ask("GET", "/v2/transcript", "k", Vec::new()).await.json();
    assert_eq!(listed["transcripts"].as_array().unwrap().len(), 0);

    for (key, body, status) in [
        ("k", json!({"audio_url": url, "speech_model": "best"}), 400),
        ("old-k", json!({"audio_url": url, "speech_models": ["best"]}), 400),
        ("old-k", json!({"audio_url": url, "speech_model": "best"}), 200),
        ("k", json!({"audio_url": url, "speech_models": ["best"], "prompt": "x"}), 400),
        ("k", json!({"audio_url": url, "speech_models": ["best"], "language_code": "en-US"}), 400),
    ] {
        let said = ask("POST", "/v2/transcript", key, order(body)).await;
        assert_eq!(said.status, status, "{}", said.text());
    }
    let foreign = json!({"audio_url": "https://a.example/b", "speech_models": ["best"]});
    let id =
        ask("POST", "/v2/transcript", "k", order(foreign)).await.json()["id"].as_str().unwrap().to_owned();
    let look = format!("/v2/transcript/{id}");
    ask("GET", &look, "k", Vec::new()).await;
    let failed = ask("GET", &look, "k", Vec::new()).await.json();
    assert_eq!(failed["status"], "error");
    assert!(failed["error"].as_str().unwrap().contains("Download error"));
}

#[tokio::test]
async fn pictures_and_who_refuses_what() {
    let simulator = simulator();
    let ask = async |path: &str, body: Value| {
        send(&simulator, "POST", path, "Bearer k", "application/json", body.to_string()).await
    };
    let path = "/v1/images/generations";
    let said = ask(path, json!({"model": "dall-e-3", "prompt": "a cat", "size": "1024x1792"})).await.json();
    assert!(said["data"][0]["url"].as_str().unwrap().starts_with("http://sim:1/v1/pictures/"));
    assert_eq!(said["data"][0]["revised_prompt"], "A picture of: a cat");
    let said = ask(path, json!({"model": "gpt-image-1.5", "prompt": "a cat", "n": 2})).await.json();
    assert_eq!(
        (said["data"].as_array().unwrap().len(), said["usage"]["output_tokens"].as_u64()),
        (2, Some(2112))
    );
    assert!(said["data"][1]["b64_json"].is_string());
    for (path, body, says) in [
        (path, json!({"model": "dall-e-3", "prompt": "a", "n": 2}), "'n'"),
        (path, json!({"model": "dall-e-2", "prompt": "a", "quality": "hd"}), "quality"),
        (path, json!({"model": "gpt-image-1", "prompt": "a", "response_format": "url"}), "response_format"),
        ("/xai/v1/images/generations", json!({"model": "echo", "prompt": "a", "size": "1024x1024"}), "size"),
        (
            "/together/v1/images/generations",
            json!({"model": "echo", "prompt": "a", "size": "1024x1024"}),
            "size",
        ),
        (
            "/together/v1/images/generations",
            json!({"model": "echo", "prompt": "a", "response_format": "b64_json"}),
            "base64",
        ),
        (path, json!({"model": "echo", "prompt": ""}), "prompt"),
    ] {
        let said = ask(path, body).await;
        assert_eq!(said.status, 400, "{}", said.text());
        assert!(said.text().contains(says), "{}", said.text());
    }
    let gone = ask("/retired/v1/images/generations", json!({"model": "dall-e-3", "prompt": "a"})).await;
    assert_eq!((gone.status, gone.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    let picture = send(&simulator, "GET", "/v1/pictures/x.png", "", "", "").await;
    assert_eq!((picture.content_type.as_str(), &picture.body[..4]), ("image/png", &b"\x89PNG"[..]));
    for _ in 0..2 {
        assert_eq!(ask(path, json!({"model": "fail-first-2", "prompt": "a"})).await.status, 503);
    }
    assert_eq!(ask(path, json!({"model": "fail-first-2", "prompt": "a"})).await.status, 200);
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

#[tokio::test]
async fn pictures_are_changed() {
    let simulator = simulator();
    let ask = async |path: &str, fields: &[(&str, &str)], files: &[(&str, &str, &str, &[u8])]| {
        let body = form_of(fields, files);
        send(&simulator, "POST", path, "Bearer k", "multipart/form-data; boundary=B", body).await
    };
    let path = "/v1/images/edits";
    let png = |name: &'static str| (name, "a.png", "image/png", PNG);
    let fields = [("model", "gpt-image-1.5"), ("prompt", "a hat"), ("input_fidelity", "high")];
    let said = ask(path, &fields, &[png("image[]"), png("image[]"), png("mask")]).await.json();
    let told = said["data"][0]["revised_prompt"].as_str().unwrap();
    assert!(
        told.starts_with("a hat: 2 pictures of 16 bytes with the sum ") && told.ends_with(", with a mask")
    );
    assert_eq!(said["usage"]["input_tokens_details"]["image_tokens"], 170);
    let old = [("model", "dall-e-2"), ("prompt", "a hat")];
    for (fields, files, says) in [
        (&fields[..], &[][..], "'image'"),
        (&fields, &[png("image"), png("image")], "image[]"),
        (&fields, &[("image", "a.png", "application/octet-stream", PNG)], "mimetype"),
        (&fields, &[("image", "a.png", "image/jpeg", PNG)], "image/jpeg"),
        (&old, &[png("image[]"), png("image[]")], "more than 1"),
        (&[("model", "dall-e-3"), ("prompt", "a")], &[png("image")], "dall-e-3"),
        (&[("model", "gpt-image-1"), ("prompt", "a"), ("style", "vivid")], &[png("image")], "style"),
    ] {
        let said = ask(path, fields, files).await;
        assert_eq!(said.status, 400, "{}", said.text());
        assert!(said.text().contains(says), "{}", said.text());
    }
    assert_eq!(ask("/xai/v1/images/edits", &old, &[png("image")]).await.status, 415);
    let named = async |path: &str, body: Value| {
        send(&simulator, "POST", path, "Bearer k", "application/json", body.to_string()).await
    };
    let data = format!("data:image/png;base64,{}", "iVBORw0KGgo=");
    let body = json!({"model": "gpt-image-1", "prompt": "a", "images": [{"image_url": data}]});
    assert!(named(path, body).await.text().contains("1 pictures of 8 bytes"));
    let xai = "/xai/v1/images/edits";
    let body = json!({"model": "grok-2-image-1212", "prompt": "a", "image": {"url": data}});
    assert_eq!(named(xai, body).await.status, 200);
    for body in [
        json!({"model": "grok-2-image-1212", "prompt": "a"}),
        json!({"model": "grok-2-image-1212", "prompt": "a", "image": {"url": "data:image/png;base64,QQ=="}}),
        json!({"model": "grok-2-image-1212", "prompt": "a", "image": {"url": data}, "images": [{"url": data}]}),
    ] {
        assert_eq!(named(xai, body).await.status, 400);
    }
}

#[tokio::test]
async fn pictures_can_be_watched() {
    let simulator = simulator();
    let ask = async |body: Value| {
        let path = "/v1/images/generations";
        send(&simulator, "POST", path, "Bearer k", "application/json", body.to_string()).await
    };
    let kinds = |said: &Said| -> Vec<String> {
        let text = said.text();
        let names = text.lines().filter_map(|line| line.strip_prefix("event: "));
        names.map(str::to_owned).collect()
    };
    let sketch = "image_generation.partial_image";
    let body = |model: &str| json!({"model": model, "prompt": "a", "stream": true, "partial_images": 2});
    let said = ask(body("gpt-image-1")).await;
    assert!(said.content_type.starts_with("text/event-stream"));
    assert_eq!(kinds(&said), [sketch, sketch, "image_generation.completed"]);
    assert!(said.text().contains("\"usage\":{"));
    assert_eq!(kinds(&ask(body("gpt-image-1,end-1")).await), [sketch]);
    assert_eq!(kinds(&ask(body("gpt-image-1,error-after-1")).await), [sketch, "error"]);
    let quiet = ask(json!({"model": "gpt-image-1", "prompt": "a", "partial_images": 2})).await;
    assert_eq!(quiet.status, 400, "{}", quiet.text());
    assert_eq!(ask(json!({"model": "dall-e-3", "prompt": "a", "stream": true})).await.status, 400);
}

#[tokio::test]
async fn gemini_paints_where_it_is_asked_to() {
    let simulator = simulator();
    let ask = async |config: Value| {
        let body =
            json!({"contents": [{"role": "user", "parts": [{"text": "a cat"}]}], "generationConfig": config});
        let path = "/v1beta/models/gemini-3-pro-image:generateContent";
        send(&simulator, "POST", path, "", "application/json", body.to_string()).await
    };
    let said = ask(json!({"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "9:16"}}))
        .await
        .json();
    assert_eq!(said["candidates"][0]["content"]["parts"][1]["inlineData"]["mimeType"], "image/png");
    let refused =
        ask(json!({"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "7:5"}})).await;
    assert_eq!((refused.status, refused.json()["error"]["status"].as_str()), (400, Some("INVALID_ARGUMENT")));
}

#[tokio::test]
async fn speech() {
    let simulator = simulator();
    let ask = async |body: Value| {
        send(&simulator, "POST", "/v1/audio/speech", "Bearer k", "application/json", body.to_string()).await
    };
    let wav = ask(json!({"model": "tts-1", "input": "Hi", "voice": "alloy", "response_format": "wav"})).await;
    assert_eq!((wav.content_type.as_str(), wav.body.len()), ("audio/wav", 44 + 2 * 2 * 960));
    let mp3 = ask(json!({"model": "tts-1", "input": "Hi", "voice": "alloy"})).await;
    assert_eq!((mp3.content_type.as_str(), &mp3.body[..2]), ("audio/mpeg", &b"\xff\xfb"[..]));
    assert_eq!(ask(json!({"model": "tts-1", "input": "Hi", "voice": "x"})).await.status, 400);
}
