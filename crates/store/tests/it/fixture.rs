//! A database of its own for each story, and rows to fill it with.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use omniroute_dialect::ir::{Tier, Usage};
use omniroute_domain::budget::Event;
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::entity::{
    ApiKey, Connection, ConnectionOptions, ConnectionStatus, CustomModel, KeyHash, Node, NodeType,
    RuntimeSettings,
};
use omniroute_domain::health::HealthMap;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::Live;
use omniroute_engine::ports::{AttemptRow, Memory, Recorder, RequestRow, RowId};
use omniroute_provider::catalog::catalog;
use omniroute_store::{Location, Store, StoreError, StoreOptions, Writer, WriterHandle, WriterOptions};
use secrecy::SecretString;
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// 2026-01-02T03:04:05.678Z
pub(crate) const NOW: i64 = 1_767_323_045_678;
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A database that is gone with the value.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) options: StoreOptions,
    _dir: Option<TempDir>,
}

impl Fixture {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Sqlite { data_dir: dir.path().join("data") };
        let options = StoreOptions { location, encryption_key: None, previous_key: None };
        Self { store: Store::open(options.clone()).await.unwrap(), options, _dir: Some(dir) }
    }

    /// A schema of its own on the server that the environment names.
    #[expect(clippy::disallowed_methods, reason = "tests have no settings")]
    pub(crate) async fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = std::env::var("OMNIROUTE_TEST_PG").ok()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("story_{}_{number}", std::process::id());
        let mut admin = sqlx::PgConnection::connect(&server).await.unwrap();
        let fresh = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        admin.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(fresh))).await.unwrap();
        admin.close().await.unwrap();
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{separator}options[search_path]={schema}");
        let options = StoreOptions {
            location: Location::Postgres { url: url.into() },
            encryption_key: Some("a passphrase for stories".into()),
            previous_key: None,
        };
        Some(Self { store: Store::open(options.clone()).await.unwrap(), options, _dir: None })
    }

    /// The same database, opened once more.
    pub(crate) async fn again(&self) -> Store {
        Store::open(self.options.clone()).await.unwrap()
    }
}

/// Sets all settings.
pub(crate) async fn put_settings(store: &Store, settings: &RuntimeSettings) {
    let set = |stored: &mut RuntimeSettings| {
        stored.clone_from(settings);
        Ok::<_, StoreError>(())
    };
    store.settings().change(set).await.unwrap().unwrap();
}

/// Makes a test per engine out of `async fn story(fixture: Fixture)`.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $story() {
                super::$story($crate::fixture::Fixture::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $story() {
                if let Some(fixture) = $crate::fixture::Fixture::postgres().await {
                    super::$story(fixture).await;
                }
            })+
        }
    };
}
pub(crate) use stories;

pub(crate) fn connection(id: &str, provider: &str, name: &str, key: Option<&str>) -> Connection {
    Connection {
        email: Some("someone@example.org".into()),
        api_key: key.map(SecretString::from),
        options: ConnectionOptions {
            base_url: Some("http://127.0.0.1:9/v1".into()),
            vars: [("region".to_owned(), "eu".to_owned())].into(),
            excluded_models: vec!["gpt-3*".into()],
            ..ConnectionOptions::default()
        },
        default_model: Some("gpt-4o".into()),
        max_concurrent: Some(4),
        group: Some("team".into()),
        tags: vec!["eu".into()],
        ..Connection::new(id.into(), provider.into(), name, NOW)
    }
}

pub(crate) fn node(id: &str, prefix: &str) -> Node {
    Node {
        id: id.into(),
        node_type: NodeType::OpenaiCompatible,
        name: format!("node {prefix}"),
        prefix: prefix.into(),
        api_type: Some("chat".into()),
        base_url: "http://localhost:8080/v1".into(),
        chat_path: None,
        models_path: Some("/models".into()),
        headers: [("x-team".to_owned(), "a".to_owned())].into(),
        allow_private: true,
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(crate) fn model(provider: &str, id: &str) -> CustomModel {
    CustomModel {
        provider: provider.into(),
        id: id.into(),
        name: id.to_uppercase(),
        source: "manual".into(),
        api_format: "chat-completions".into(),
        supported_endpoints: vec!["chat".into()],
        is_hidden: false,
        context_window: Some(8192),
        max_output: None,
        caps: [("tools".to_owned(), true)].into(),
    }
}

pub(crate) fn api_key(id: &str, key: &str) -> ApiKey {
    ApiKey {
        id: id.into(),
        name: format!("key {id}"),
        hash: KeyHash::of(key),
        masked: "sk-omni-****".into(),
        is_active: true,
        no_log: true,
        allowed_models: vec!["openai/*".into()],
        denied_models: vec![],
        allowed_connections: vec![],
        allowed_endpoints: vec!["chat".into()],
        scopes: vec![omniroute_domain::entity::Scope::Manage],
        ip_allowlist: vec!["10.0.0.0/8".into()],
        max_requests_per_minute: Some(60),
        max_requests_per_day: None,
        max_tokens_per_minute: Some(u64::from(u32::MAX) + 1),
        max_concurrent: Some(2),
        max_sessions: 7,
        strict: true,
        rights: Default::default(),
        expires_at: Some(NOW + DAY),
        revoked_at: None,
        last_used_at: None,
        created_at: NOW,
    }
}

/// The id of the row that [`request`] makes under a short name of at most seven bytes; sorts by time, then by name.
pub(crate) fn row_id(name: &str, timestamp_ms: i64) -> RowId {
    let mut random = [0; 10];
    random[3..][..name.len()].copy_from_slice(name.as_bytes());
    RowId::new(timestamp_ms, random)
}

/// A request that the account `c1` of `openai` answered.
pub(crate) fn request(name: &str, timestamp_ms: i64) -> RequestRow {
    let dialect = |name| omniroute_dialect::registry::by_name(name).unwrap().id();
    RequestRow {
        id: row_id(name, timestamp_ms),
        request_id: format!("req_{name}").into(),
        method: http::Method::POST,
        path: "/v1/chat/completions".into(),
        request_type: "chat",
        status: 200,
        requested_model: "fast".into(),
        model: "gpt-4o".into(),
        provider: Some("openai".into()),
        connection: Some("c1".into()),
        connection_name: Some("work".into()),
        api_key: Some("k1".into()),
        api_key_name: Some("dev".into()),
        client_dialect: dialect("openai"),
        upstream_dialect: Some(dialect("anthropic")),
        stream: true,
        duration_ms: 100,
        ttft_ms: Some(20),
        overhead_us: 150,
        units: None,
        usage: Usage {
            input_uncached: Some(10),
            cache_read: Some(5),
            output_total: Some(7),
            reasoning: Some(2),
            tier: Some(Tier::Flex),
            ..Usage::default()
        },
        usage_estimated: false,
        cost_nano: Some(1_500),
        price_source: Some("catalog"),
        price_version: Some("abc".into()),
        source: "upstream",
        similarity: None,
        combo: None,
        combo_step: None,
        is_fallback: false,
        bills: vec![],
        attempts: vec![],
        error: None,
        error_code: None,
        losses: vec![],
        decision: None,
        bodies: omniroute_engine::bodies::BodyNote::Off,
    }
}

pub(crate) fn attempt(connection: &str, status: Option<u16>, failure: Option<&'static str>) -> AttemptRow {
    AttemptRow {
        provider: "openai".into(),
        model: "gpt-4o".into(),
        connection: connection.into(),
        connection_name: format!("name of {connection}").into(),
        path: Default::default(),
        status,
        failure,
        message: failure.map(|class| format!("it was {class}")),
        duration_ms: 30,
        units: None,
        usage: Usage::default(),
        is_unheard: false,
        cost_nano: None,
    }
}

/// A writer that writes only when it is asked to, or when a batch is full.
pub(crate) fn writer(
    store: &Store,
    options: WriterOptions,
) -> (std::sync::Arc<omniroute_store::StoreRecorder>, WriterHandle) {
    Writer::start(store.clone(), options, &TaskTracker::new(), CancellationToken::new())
}

/// A process that has just begun on a database.
pub(crate) async fn process(store: &Store) -> Live {
    let health = HealthMap::default();
    let entities = store.entities().await.unwrap();
    Live::new(Snapshot::build(&entities, catalog(), &health, &BuildOptions::default()), health)
}

/// It takes over what is configured now.
pub(crate) async fn reload(store: &Store, live: &Live, recorder: &dyn Recorder) {
    omniroute_store::reload(store, live, catalog(), &BuildOptions::default(), recorder, NOW).await.unwrap();
}

/// Keeps what is to be remembered, instead of writing it.
#[derive(Default)]
pub(crate) struct Remembered(pub(crate) Mutex<Vec<Memory>>);

impl Recorder for Remembered {
    fn record(&self, _: RequestRow) {}
    fn connection_status(&self, _: &ConnectionId, _: ConnectionStatus) {}
    fn remember(&self, memory: Memory) {
        self.0.lock().unwrap().push(memory);
    }
    fn budget(&self, _: Event) {}
}
