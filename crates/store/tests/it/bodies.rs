//! What was said in requests: in files beside the database, as long as the log has their rows and there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use omniroute_domain::entity::{CallBodySettings, Entities, KeyPool, Node, NodeType, RuntimeSettings};
use omniroute_domain::health::HealthMap;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::bodies::{BodyNote, BodySummary, CallBodies, Copied, RequestBodies};
use omniroute_engine::ports::{Recorder as _, RequestRow};
use omniroute_provider::catalog::catalog;
use omniroute_store::{BodyState, CallLog, FoundBodies, StoreRecorder, WriterOptions};

use crate::fixture::{DAY, Fixture, HOUR, NOW, connection, request, stories, writer};

stories!(
    bodies_are_found_by_their_row,
    no_secret_reaches_the_disk,
    bodies_go_with_their_rows,
    the_oldest_bodies_go_where_there_is_no_room,
    too_many_at_once_are_let_go,
    what_waits_is_written_before_the_end,
    logs_are_deleted_with_their_bodies,
);

const OPTIONS: WriterOptions = WriterOptions {
    queue_rows: 8192,
    flush_rows: usize::MAX,
    flush_interval: std::time::Duration::from_secs(3600),
    batch_rows: 1024,
    memory_bytes: 1 << 20,
    question_bytes: 1 << 20,
};
const SECRET: &str = "correct horse/battery\"staple";
const POOLED: &str = "another-key-of-the-same-account";
/// Of an account that is switched off, and of one whose provider is blocked.
const IDLE: [&str; 3] =
    ["a-key-of-one-that-is-off", "a-header-of-one-that-is-off", "a-key-of-one-that-is-blocked"];

fn snapshot(settings: CallBodySettings) -> Arc<Snapshot> {
    let node = Node {
        id: "openai-compatible-chat-1".into(),
        node_type: NodeType::OpenaiCompatible,
        name: "up".into(),
        prefix: "up".into(),
        base_url: "https://up.example/v1".into(),
        ..crate::fixture::node("n", "n")
    };
    let mut account = connection("c9", node.id.as_str(), "work", Some("an-upstream-key-0123"));
    account.options.extra_headers.insert("x-tenant".into(), SECRET.into());
    account.options.api_keys = KeyPool(vec![POOLED.into()]);
    let mut off = connection("c8", node.id.as_str(), "off", Some(IDLE[0]));
    off.is_active = false;
    off.options.extra_headers.insert("x-tenant".into(), format!("Token {}", IDLE[1]));
    let mut blocked = connection("c7", "deepseek", "blocked", Some(IDLE[2]));
    blocked.is_active = true;
    let mut entities =
        Entities { connections: vec![account, off, blocked], nodes: vec![node], ..Entities::default() };
    entities.settings.blocked_providers = vec!["deepseek".into()];
    entities.settings.call_log_bodies = settings;
    let snapshot = Snapshot::build(&entities, catalog(), &HealthMap::default(), &BuildOptions::default());
    assert_eq!(snapshot.problems, []);
    Arc::new(snapshot)
}

fn copied(text: &str) -> Copied {
    Copied::whole(&[Bytes::copy_from_slice(text.as_bytes())])
}

fn bodies(row: &RequestRow, request: &str, response: &str, snapshot: &Arc<Snapshot>) -> RequestBodies {
    RequestBodies {
        id: row.id,
        summary: BodySummary {
            request_id: row.request_id.clone(),
            method: row.method.clone(),
            path: row.path.clone(),
            request_type: row.request_type,
            status: row.status,
            stream: row.stream,
            requested_model: row.requested_model.clone(),
            model: row.model.clone(),
            provider: row.provider.clone(),
            connection: row.connection.clone(),
            api_key: row.api_key.clone(),
            client_dialect: row.client_dialect,
            upstream_dialect: row.upstream_dialect,
            duration_ms: row.duration_ms,
            attempts: 1,
            error: None,
            error_code: None,
        },
        query: None,
        headers: HeaderMap::new(),
        request: copied(request),
        response: copied(response),
        call: None,
        snapshot: snapshot.clone(),
    }
}

/// Records a request with its bodies, as the engine does.
fn keep(recorder: &StoreRecorder, mut row: RequestRow, bodies: RequestBodies) {
    let pipeline = bodies.call.is_some();
    row.bodies = match recorder.keep_bodies(Box::new(bodies)) {
        Some(at) => BodyNote::Kept { at, request: true, response: true, pipeline },
        None => BodyNote::Shed,
    };
    recorder.record(row);
}

async fn log(fixture: &Fixture, row: &RequestRow) -> CallLog {
    fixture.store.call_logs().get(&row.id.to_string()).await.unwrap().expect("there is such a row")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

async fn bodies_are_found_by_their_row(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let snapshot = snapshot(CallBodySettings::default());
    let row = request("r1", NOW);
    keep(&recorder, row.clone(), bodies(&row, r#"{"model":"fast"}"#, "data: {}\n\n", &snapshot));
    handle.flush().await;

    let logged = log(&fixture, &row).await;
    assert_eq!(logged.bodies, BodyState::Kept { request: true, response: true, pipeline: false });
    let FoundBodies::Here(found) = fixture.store.bodies_of(&logged, NOW).await else { panic!("not here") };
    assert_eq!(found.request_body.unwrap().get(), r#"{"model":"fast"}"#);
    assert_eq!(found.response_body.unwrap().get(), r#""data: {}\n\n""#);
    assert_eq!(found.pipeline.client_request.method.as_deref(), Some("POST"));
    let stats = recorder.stats();
    assert_eq!((stats.written_bodies, stats.shed_bodies, stats.failed_bodies), (1, 0, 0));
    assert!(stats.body_bytes > 0);

    // A process with another data directory says who has them.
    let there = tempfile::tempdir().unwrap();
    let other = fixture.again().await;
    other.keep_bodies_in(there.path());
    let FoundBodies::Elsewhere(at) = other.bodies_of(&logged, NOW).await else { panic!("not elsewhere") };
    let here_it_is = fs::canonicalize(here.path()).unwrap();
    assert!(at.ends_with(&format!(":{}", here_it_is.display())), "{at}");

    // One that was started anew finds them.
    let again = fixture.again().await;
    again.keep_bodies_in(here.path());
    assert!(matches!(again.bodies_of(&logged, NOW).await, FoundBodies::Here(_)));

    // A file that is damaged, one that is not there yet, and one that somebody deleted.
    let file = files(here.path()).pop().unwrap();
    fs::write(&file, b"nonsense").unwrap();
    assert!(matches!(again.bodies_of(&logged, NOW).await, FoundBodies::Unreadable(_)));
    fs::remove_file(&file).unwrap();
    assert!(matches!(again.bodies_of(&logged, NOW).await, FoundBodies::Awaited));
    assert!(matches!(again.bodies_of(&logged, NOW + HOUR).await, FoundBodies::Missing));
}

async fn no_secret_reaches_the_disk(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let snapshot = snapshot(CallBodySettings::default());
    let row = request("r1", NOW);
    let quoted = serde_json::to_string(SECRET).unwrap();
    let secrets = [
        "an-upstream-key-0123",
        SECRET,
        &quoted,
        POOLED,
        "the-callers-own-key",
        "a-key-in-a-query",
        "fresh-token-77",
        IDLE[0],
        IDLE[1],
        IDLE[2],
    ];
    let idle = IDLE.join(" ");
    let said = format!(
        r#"{{"text":"an-upstream-key-0123 {POOLED} the-callers-own-key a-key-in-a-query","more":[{quoted},"fresh-token-77"],"idle":"{idle}"}}"#
    );
    let mut all = bodies(&row, &said, &format!("data: {said}\n\n"), &snapshot);
    all.query = Some("key=a-key-in-a-query&alt=sse".into());
    all.headers.insert("x-api-key", HeaderValue::from_static("the-callers-own-key"));
    let mut headers = HeaderMap::new();
    let mut token = HeaderValue::from_static("Bearer fresh-token-77");
    token.set_sensitive(true);
    headers.insert("authorization", token);
    headers.insert("x-plain", HeaderValue::from_static("says an-upstream-key-0123"));
    let uri = format!("https://up.example/v1beta/{POOLED}:generate?key=an-upstream-key-0123");
    let mut heard = HeaderMap::new();
    heard.insert("set-cookie", HeaderValue::from_static("session=an-upstream-key-0123"));
    all.call = Some(Box::new(CallBodies {
        method: http::Method::POST,
        uri: uri.parse().unwrap(),
        headers,
        request: copied(&said),
        attached: 7,
        head: Some((StatusCode::OK, heard)),
        response: copied(&said),
    }));
    keep(&recorder, row.clone(), all);
    handle.flush().await;
    let logged = log(&fixture, &row).await;
    let FoundBodies::Here(found) = fixture.store.bodies_of(&logged, NOW).await else { panic!("not here") };
    let text = serde_json::to_string(&found).unwrap();
    for secret in secrets {
        assert!(!text.contains(secret) && !text.contains(&secret.replace('"', "\\\"")), "{secret}: {text}");
    }
    let sent = found.pipeline.provider_request.unwrap();
    assert_eq!(sent.url.as_deref(), Some("https://up.example/v1beta/[key]:generate?key=[key]"));
    assert_eq!(sent.headers.as_ref().unwrap()["x-plain"], "says [key]");
    assert_eq!(sent.attached_bytes, Some(7));
    let clean = r#"{"text":"[key] [key] [key] [key]","more":["[key]","[key]"],"idle":"[key] [key] [key]"}"#;
    assert_eq!((found.request_body.unwrap().get(), sent.body.unwrap().get()), (clean, clean));
    assert_eq!(found.pipeline.client_request.query.as_deref(), Some("key=[key]&alt=sse"));
}

async fn bodies_go_with_their_rows(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let snapshot = snapshot(CallBodySettings::default());
    for day in 0..10 {
        let row = request(&format!("r{day}"), NOW - day * DAY - HOUR);
        keep(&recorder, row.clone(), bodies(&row, "{}", "{}", &snapshot));
    }
    handle.flush().await;
    assert_eq!(files(here.path()).len(), 10);
    let old = RuntimeSettings { log_retention_days: 6, ..RuntimeSettings::default() };
    assert_eq!(fixture.store.prune(NOW, &old).await.unwrap().bodies, 4);
    let few = RuntimeSettings { call_log_max_entries: 2, ..RuntimeSettings::default() };
    assert_eq!(fixture.store.prune(NOW, &few).await.unwrap().bodies, 4);
    assert_eq!(files(here.path()).len(), 2);
    let none = RuntimeSettings { call_log_max_entries: 0, ..RuntimeSettings::default() };
    assert_eq!(fixture.store.prune(NOW, &none).await.unwrap().bodies, 2);
    assert_eq!(files(here.path()), Vec::<PathBuf>::new());
}

async fn the_oldest_bodies_go_where_there_is_no_room(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let mut settings = CallBodySettings { max_disk_mb: 1, ..CallBodySettings::default() };
    let small = snapshot(settings);
    // What cannot be compressed: letters in no order.
    let mut state = 1_u64;
    let mut noise = || {
        let letters = (0..300_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + 2 + ((state >> 33) % 56) as u8)
        });
        letters.collect::<String>()
    };
    let rows: Vec<_> = (0..10).map(|number| request(&format!("r{number}"), NOW + number)).collect();
    for row in &rows {
        keep(&recorder, row.clone(), bodies(row, &noise(), "{}", &small));
        handle.flush().await;
    }
    assert!(recorder.stats().body_bytes <= settings.max_bytes(), "{}", recorder.stats().body_bytes);
    let left = files(here.path()).len();
    assert!((2..6).contains(&left), "{left}");
    settings.max_disk_mb = 0;
    let none = RuntimeSettings { call_log_bodies: settings, ..RuntimeSettings::default() };
    assert_eq!(fixture.store.prune(NOW, &none).await.unwrap().bodies, left as u64);
    // The process tells the rows when it has time, and at its end.
    handle.close().await;
    for row in &rows {
        let logged = log(&fixture, row).await;
        assert_eq!((logged.bodies, logged.bodies_at), (BodyState::Pruned, None), "{}", logged.request_id);
    }
}

async fn too_many_at_once_are_let_go(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let snapshot = snapshot(CallBodySettings::default());
    let long = Bytes::from("some words ".repeat(400_000));
    let all = 100;
    for number in 0..all {
        let row = request(&format!("r{number}"), NOW + number);
        let mut said = bodies(&row, "{}", "{}", &snapshot);
        said.request = Copied::whole(std::slice::from_ref(&long));
        keep(&recorder, row, said);
    }
    handle.flush().await;
    let stats = recorder.stats();
    assert!(stats.shed_bodies > 50 && stats.written_bodies >= 7, "{stats:?}");
    assert_eq!(stats.shed_bodies + stats.written_bodies, all.unsigned_abs());
    assert_eq!((stats.written_rows, stats.shed_rows), (all.unsigned_abs(), 0));
    let states = async |number| log(&fixture, &request(&format!("r{number}"), NOW + number)).await.bodies;
    assert!(matches!(states(0).await, BodyState::Kept { .. }));
    assert_eq!(states(all - 1).await, BodyState::Shed);
}

async fn what_waits_is_written_before_the_end(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let snapshot = snapshot(CallBodySettings::default());
    for number in 0..50 {
        let row = request(&format!("r{number}"), NOW + number);
        keep(&recorder, row.clone(), bodies(&row, "{}", "{}", &snapshot));
    }
    handle.close().await;
    assert_eq!(files(here.path()).len(), 50);
    let late = request("late", NOW);
    assert!(recorder.keep_bodies(Box::new(bodies(&late, "{}", "{}", &snapshot))).is_none());
    assert_eq!(recorder.stats().shed_bodies, 1);
}

async fn logs_are_deleted_with_their_bodies(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let snapshot = snapshot(CallBodySettings::default());
    for hour in 0..10 {
        let row = request(&format!("r{hour}"), NOW - hour * HOUR);
        keep(&recorder, row.clone(), bodies(&row, "{}", "{}", &snapshot));
    }
    handle.flush().await;
    let deleted = fixture.store.call_logs().delete_before(NOW - 3 * HOUR).await.unwrap();
    assert_eq!((deleted, files(here.path()).len()), (6, 4));
}

/// A folder that cannot be written is told, and costs the rows nothing.
#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_is_none_is_told_and_costs_no_rows() {
    let fixture = Fixture::sqlite().await;
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("call_logs"), b"a file in the way").unwrap();
    fixture.store.keep_bodies_in(here.path());
    let (recorder, handle) = writer(&fixture.store, OPTIONS);
    let row = request("r1", NOW);
    let said = bodies(&row, "{}", "{}", &snapshot(CallBodySettings::default()));
    keep(&recorder, row.clone(), said);
    handle.close().await;
    let stats = recorder.stats();
    assert_eq!((stats.failed_bodies, stats.written_bodies, stats.written_rows), (1, 0, 1));
    assert_eq!(log(&fixture, &row).await.bodies, BodyState::Failed);
}
