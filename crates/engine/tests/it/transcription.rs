//! Transcripts: a recording goes to whoever can write it down, in their own form.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use http_body_util::BodyExt as _;
use omniroute_dialect::audio::Fields;
use omniroute_dialect::openai::OpenAi;
use omniroute_domain::entity::{ApiKeyId, Budget, Entities};
use omniroute_domain::price::PriceRow;
use omniroute_engine::spool::Spool;
use omniroute_engine::task::{Recording, Upload};
use omniroute_engine::{Arrival, RequestCtx};
use omniroute_provider::ProviderId;
use omniroute_testkit::Answer;
use serde_json::Value;

use crate::world::{Got, World, connection, refusal};

const NODE: &str = "openai-compatible-chat-1";

/// A second of sound.
fn wav() -> Vec<u8> {
    let mut file =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data".to_vec();
    file.extend(16_000u32.to_le_bytes());
    file.extend((0..16_000u32).map(|at| (at % 255) as u8));
    file
}

async fn recording(fields: &[(&str, &str)], filename: &str, file: &[u8]) -> Recording {
    let mut read = Fields::default();
    for (name, value) in fields {
        read.add(name, value).unwrap();
    }
    let mut spool = Spool::new();
    spool.push(file).await.unwrap();
    Recording {
        request: read.finish(true).unwrap(),
        upload: Upload {
            file: Arc::new(spool.finish().await.unwrap()),
            filename: filename.to_owned(),
            content_type: None,
            seconds: None,
        },
    }
}

pub(crate) fn begin(world: &World, headers: &[(&str, &str)]) -> Box<RequestCtx> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let mut ctx = world.engine.begin(Arrival {
        peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        method: Method::POST,
        path: "/v1/audio/transcriptions".into(),
        query: None,
        headers: map,
        dialect: &OpenAi,
        endpoint: "audio",
        provider: None,
        is_logged: true,
    });
    world.engine.identify(&mut ctx).unwrap();
    ctx
}

async fn transcribe(world: &World, recording: Recording, headers: &[(&str, &str)]) -> Got {
    let ctx = begin(world, headers);
    let (head, body) = world.engine.transcribe(ctx, recording).await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(bytes.to_vec()).unwrap();
    Got { status: head.status.as_u16(), headers: head.headers, body }
}

async fn ask(world: &World, fields: &[(&str, &str)]) -> Got {
    transcribe(world, recording(fields, "a.wav", &wav()).await, &[]).await
}

fn with_vendors(entities: &mut Entities) {
    for (at, vendor) in ["deepgram", "assemblyai", "groq"].into_iter().enumerate() {
        entities.connections.push(connection(&format!("v{at}"), &ProviderId::from(vendor), vendor, 1));
    }
}

fn text(text: &str) -> Answer {
    Answer::json(200, format!(r#"{{"text":"{text}"}}"#))
}

#[tokio::test(start_paused = true)]
async fn a_form_is_sent_again_billed_and_logged() {
    let price = |entities: &mut Entities| {
        let row = PriceRow { per_second_in: Some(0.0001), ..PriceRow::default() };
        entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
    };
    let world = World::with(price, |_| {});
    world.transport.answer(text("Hi"));
    let got = ask(&world, &[("model", "up/m"), ("prompt", "names"), ("stream", "true")]).await;
    assert_eq!(
        (got.status, got.body.as_str()),
        (200, r#"{"text":"Hi","task":"transcribe","language":null,"duration":1}"#)
    );
    let sent = &world.transport.sent()[0];
    assert_eq!(sent.uri.to_string(), "https://upstream.example/v1/audio/transcriptions");
    let content_type = sent.headers["content-type"].to_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let body = String::from_utf8_lossy(&sent.body);
    assert!(
        body.starts_with(&format!("--{boundary}\r\n")) && body.ends_with(&format!("\r\n--{boundary}--\r\n"))
    );
    assert!(
        body.contains("name=\"model\"\r\n\r\nm\r\n") && body.contains("name=\"prompt\"\r\n\r\nnames\r\n")
    );
    assert!(!body.contains("name=\"stream\""));
    let file = wav();
    assert!(sent.body.windows(file.len()).any(|window| window == file), "every byte of the file arrives");
    let row = world.row();
    assert_eq!((row.request_type, row.cost_nano), ("audio-stt", Some(100_000)));
    assert_eq!(row.units.map(|units| units.millis_in), Some(1_000));
}

#[tokio::test(start_paused = true)]
async fn a_second_account_gets_the_file_again() {
    let world = World::new();
    world.transport.answer(refusal(500, "server_error", "no")).answer(text("Hi"));
    let mut long = wav();
    long.resize(9 * 1024 * 1024, 7);
    let got = transcribe(&world, recording(&[("model", "up/m")], "a.wav", &long).await, &[]).await;
    assert_eq!((got.status, got.header("x-omniroute-attempts")), (200, "2"), "{}", got.body);
    for sent in world.transport.sent() {
        assert!(sent.body.len() > long.len() && sent.body.windows(long.len()).any(|window| window == long));
    }
}

#[tokio::test(start_paused = true)]
async fn formats_pass_and_those_that_are_missing_are_made() {
    let world = World::with(with_vendors, |_| {});
    let subtitles = "1\n00:00:00,000 --> 00:00:01,000\nHi\n\n";
    world.transport.answer(Answer::new(200, "text/plain").send(subtitles));
    let got = ask(&world, &[("model", "up/m"), ("response_format", "srt")]).await;
    assert_eq!((got.body.as_str(), got.header("content-type")), (subtitles, "text/plain; charset=utf-8"));

    let verbose = r#"{"task":"transcribe","language":"english","duration":1.0,"text":"Hi","segments":[{"id":0,"start":0.0,"end":1.0,"text":" Hi"}]}"#;
    world.transport.answer(Answer::json(200, verbose));
    let got = ask(&world, &[("model", "groq/whisper-large-v3"), ("response_format", "vtt")]).await;
    assert_eq!(got.body, "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nHi\n\n");
    let sent = String::from_utf8_lossy(&world.transport.sent()[1].body).into_owned();
    assert!(sent.contains("name=\"response_format\"\r\n\r\nverbose_json"));
}

#[tokio::test(start_paused = true)]
async fn deepgram_gets_the_sound_itself() {
    let world = World::with(with_vendors, |_| {});
    let answer = r#"{"metadata":{"duration":1.0},"results":{"channels":[{"alternatives":[{"transcript":"Hi.","words":[{"word":"hi","punctuated_word":"Hi.","start":0.1,"end":0.5,"confidence":0.9}]}],"detected_language":"en"}]}}"#;
    world.transport.answer(Answer::json(200, answer));
    let got = ask(&world, &[("model", "deepgram/nova-3"), ("prompt", "x")]).await;
    assert_eq!(
        (got.status, got.body.as_str()),
        (200, r#"{"text":"Hi.","task":"transcribe","language":"en","duration":1.0}"#)
    );
    assert_eq!(got.header("x-omniroute-dropped"), "prompt");
    let sent = &world.transport.sent()[0];
    assert_eq!(
        sent.uri.to_string(),
        "https://api.deepgram.com/v1/listen?model=nova-3&smart_format=true&punctuate=true&utterances=true&detect_language=true"
    );
    assert_eq!(sent.headers["authorization"], "Token upstream-key-of-deepgram");
    assert_eq!((sent.headers["content-type"].as_bytes(), &sent.body[..]), (&b"audio/wav"[..], &wav()[..]));
    assert!(world.row().cost_nano.is_some_and(|cost| cost > 0), "it has a price by the second");

    let refused = Answer::json(402, r#"{"err_code":"ASR_PAYMENT_REQUIRED","err_msg":"not enough credits"}"#);
    world.transport.answer(refused);
    let got = ask(&world, &[("model", "deepgram/nova-3")]).await;
    assert!(got.body.contains("not enough credits"), "{}", got.body);
}

#[tokio::test(start_paused = true)]
async fn assemblyai_is_asked_until_it_is_there() {
    let world = World::with(with_vendors, |_| {});
    let state = |status: &str| Answer::json(200, format!(r#"{{"id":"tr-1","status":"{status}"}}"#));
    let done = r#"{"id":"tr-1","status":"completed","text":"Hi","language_code":"en","audio_duration":1,"words":[{"text":"Hi","start":100,"end":500,"confidence":0.9}]}"#;
    let old = refusal(400, "x", "speech_models is unknown");
    let uploaded = Answer::json(200, r#"{"upload_url":"https://cdn/x"}"#);
    world.transport.answer(uploaded).answer(old).answer(state("queued"));
    world.transport.answer(state("processing")).answer(Answer::json(200, done));
    let got = ask(&world, &[("model", "assemblyai/best"), ("response_format", "verbose_json")]).await;
    let value: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!((got.status, value["words"][0]["start"].as_f64()), (200, Some(0.1)), "{}", got.body);
    let sent = world.transport.sent();
    assert_eq!(&sent[0].body[..], &wav()[..]);
    assert_eq!(sent[0].headers["authorization"], "upstream-key-of-assemblyai");
    let asked: Vec<_> = sent.iter().map(|sent| format!("{} {}", sent.method, sent.uri.path())).collect();
    let look = "GET /v2/transcript/tr-1";
    assert_eq!(asked, ["POST /v2/upload", "POST /v2/transcript", "POST /v2/transcript", look, look]);
    assert!(String::from_utf8_lossy(&sent[1].body).contains(r#""speech_models":["best"]"#));
    assert!(String::from_utf8_lossy(&sent[2].body).contains(r#""speech_model":"best""#));
    assert_eq!(world.elapsed(), Duration::from_secs(4), "it is asked every two seconds");

    let failed = r#"{"id":"tr-1","status":"error","error":"no sound in it"}"#;
    world.transport.answer(Answer::json(200, r#"{"upload_url":"u"}"#)).answer(Answer::json(200, failed));
    let got = ask(&world, &[("model", "assemblyai/best")]).await;
    assert!(got.status == 502 && got.body.contains("no sound in it"), "{} {}", got.status, got.body);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_and_what_nobody_waits_for_is_deleted() {
    let queued = || Answer::json(200, r#"{"id":"tr-1","status":"queued"}"#);
    let uploaded = || Answer::json(200, r#"{"upload_url":"u"}"#);
    let deletes =
        |world: &World| world.transport.sent().iter().filter(|sent| sent.method == Method::DELETE).count();
    let world = World::with(with_vendors, |_| {});
    world.transport.answer(uploaded());
    for _ in 0..70 {
        world.transport.answer(queued());
    }
    let got = ask(&world, &[("model", "assemblyai/best")]).await;
    assert_eq!((got.status, world.elapsed().as_secs()), (504, 120), "{}", got.body);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(deletes(&world), 1);

    let world = World::with(with_vendors, |_| {});
    world.transport.answer(uploaded());
    for _ in 0..10 {
        world.transport.answer(queued());
    }
    let ctx = begin(&world, &[]);
    let asked = recording(&[("model", "assemblyai/best")], "a.wav", &wav()).await;
    let hung_up = tokio::time::timeout(Duration::from_secs(5), world.engine.transcribe(ctx, asked)).await;
    assert!(hung_up.is_err());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((deletes(&world), world.row().status), (1, 499));
}

#[tokio::test(start_paused = true)]
async fn wrong_files_and_tasks_are_refused_before_anybody_is_asked() {
    let world = World::with(with_vendors, |_| {});
    let fields = [("model", "up/m")];
    for (name, file, code) in [
        ("a.wav", &b""[..], "invalid_value"),
        ("a.wav", b"\x89PNG\r\n\x1a\n", "unsupported_content"),
        ("a.mp3", b"hello, this is text", "unsupported_content"),
    ] {
        let got = transcribe(&world, recording(&fields, name, file).await, &[]).await;
        assert!(got.status == 400 && got.body.contains(code), "{}", got.body);
    }
    let mut asked = recording(&[("model", "deepgram/nova-3")], "a.wav", &wav()).await;
    asked.request.translates = true;
    let got = transcribe(&world, asked, &[]).await;
    assert!(got.status == 400 && got.body.contains("does not translate"), "{}", got.body);
    let got = transcribe(&world, recording(&[("model", "anth/x")], "a.wav", &wav()).await, &[]).await;
    assert!(got.status == 400 && got.body.contains("has no transcriptions"), "{}", got.body);
    assert_eq!(world.transport.sent().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn repetitions_are_known_by_their_key_and_by_the_file() {
    let world = World::new();
    let once = [("idempotency-key", "once")];
    let fields = [("model", "up/m")];
    world.transport.answer(text("one")).answer(text("two")).answer(text("three")).answer(text("four"));
    let mut other = wav();
    other.push(1);
    let mut said = Vec::new();
    for (file, headers) in [
        (wav(), &once[..]),
        (wav(), &once),
        (other, &once),
        (wav(), &[("x-request-id", "r")]),
        (wav(), &[("x-request-id", "r")]),
    ] {
        let got = transcribe(&world, recording(&fields, "a.wav", &file).await, headers).await;
        let value: Value = serde_json::from_str(&got.body).unwrap();
        said.push(value["text"].as_str().unwrap().to_owned());
    }
    assert_eq!(said, ["one", "one", "two", "three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn speech_is_passed_on_and_billed_by_the_character() {
    let price = |entities: &mut Entities| {
        let row = PriceRow { per_character_in: Some(0.000_015), ..PriceRow::default() };
        entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
    };
    let world = World::with(price, |_| {});
    world.transport.answer(Answer::new(200, "audio/mpeg").send(&b"\xff\xfb"[..]));
    let body = r#"{"model":"up/m","input":"Hello","voice":"alloy"}"#;
    let ctx = begin(&world, &[]);
    let response = world.engine.speech(ctx, body.into()).await;
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].as_bytes()),
        (200, &b"audio/mpeg"[..])
    );
    assert_eq!(&response.into_body().collect().await.unwrap().to_bytes()[..], b"\xff\xfb");
    let sent = &world.transport.sent()[0];
    assert_eq!(sent.uri.path(), "/v1/audio/speech");
    assert_eq!(&sent.body[..], br#"{"model":"m","input":"Hello","voice":"alloy"}"#);
    let row = world.row();
    assert_eq!((row.request_type, row.cost_nano), ("audio-tts", Some(75_000)));
    // Sound is long: it is repeated for those alone who say that they may ask twice.
    for (header, calls) in [(("x-request-id", "r-1"), 3), (("idempotency-key", "k-1"), 4)] {
        for _ in 0..2 {
            world.transport.answer(Answer::new(200, "audio/mpeg").send(&b"\xff\xfb"[..]));
            let response = world.engine.speech(begin(&world, &[header]), body.into()).await;
            response.into_body().collect().await.unwrap();
        }
        assert_eq!(world.transport.sent().len(), calls, "{header:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sold_by_tokens_alone_is_held_for_and_billed_by_the_second() {
    // A second of sound is 32 tokens, its transcript a few more.
    let price = |entities: &mut Entities| {
        let row = PriceRow {
            input: Some(1.0),
            audio_input: Some(10.0),
            output: Some(100.0),
            ..PriceRow::default()
        };
        entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
        let budget = Budget::unlimited(Some(ApiKeyId::from("k1")));
        entities.budgets.push(Budget { total_nano: Some(720_000 + 120_000), ..budget });
    };
    let world = World::with(price, |_| {});
    let key = [("authorization", "Bearer sk-omni-test")];
    let ask_for = async |told: &str| {
        world.transport.answer(Answer::json(200, told.to_owned()));
        transcribe(&world, recording(&[("model", "up/m")], "a.wav", &wav()).await, &key).await
    };
    let got = ask_for(r#"{"text":"Hi","usage":{"type":"tokens","input_tokens":2,"output_tokens":1}}"#).await;
    assert_eq!((got.status, got.header("x-omniroute-response-cost")), (200, "0.000102"), "{}", got.body);
    assert!(!world.row().usage_estimated);
    let got = ask_for(r#"{"text":"Hi"}"#).await;
    assert_eq!((got.status, got.header("x-omniroute-usage")), (200, "estimated"), "{}", got.body);
    let row = world.row();
    assert_eq!((row.usage.audio_input, row.units.map(|units| units.millis_in)), (Some(32), Some(1_000)));
    assert!(row.cost_nano.is_some_and(|cost| cost > 320_000), "{:?}", row.cost_nano);
    let refused = ask_for(r#"{"text":"Hi"}"#).await;
    assert_eq!(refused.status, 429, "{}", refused.body);

    // A price of seconds beside that is what the vendor says that they come to.
    let world = World::with(
        |entities| {
            let row = PriceRow { input: Some(1.0), per_second_in: Some(0.0001), ..PriceRow::default() };
            entities.prices.user.entry(NODE.into()).or_default().insert("m".into(), row);
        },
        |_| {},
    );
    world.transport.answer(text("Hi"));
    assert_eq!(ask(&world, &[("model", "up/m")]).await.header("x-omniroute-usage"), "estimated");
    assert_eq!(world.row().cost_nano, Some(100_000));
}
