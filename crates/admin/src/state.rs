//! What the management API works on. Assembled by the binary.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use ipnet::IpNet;
use omniroute_domain::entity::{ApiKeyId, Connection, ConnectionId};
use omniroute_engine::{
    CacheCounts, Engine, Live, SimilarityReport,
    ports::{Cache, Clock, Recorder, Transport},
    preview::Preview,
    rehearsal::Rehearsal,
    telemetry::Telemetry,
};
use omniroute_provider::catalog::Catalog;
use omniroute_store::{RecorderStats, Store};
use secrecy::SecretString;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio_util::task::TaskTracker;

use crate::auth::Lockouts;
use crate::console::Console;
use crate::resources::availability::Watch;

/// How long a list of models from an upstream is kept.
const MODELS_TTL: Duration = Duration::from_secs(600);

/// Reads the configuration anew and puts it in force; the error says why that was not possible.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Everything the management API needs of the process.
#[derive(Clone)]
pub struct AdminState {
    /// The database.
    pub store: Store,
    /// The configuration in force.
    pub live: Arc<Live>,
    /// Providers and models.
    pub catalog: &'static Catalog,
    /// Calls upstreams, for tests of connections.
    pub transport: Arc<dyn Transport>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What can be asked for again.
    pub cache: Arc<dyn Cache>,
    /// Measurements.
    pub telemetry: Arc<Telemetry>,
    /// The latest lines of the log.
    pub console: Arc<Console>,
    /// Says what would become of client requests.
    pub previews: Arc<dyn Previews>,
    /// Answers that are given again.
    pub reuse: Arc<dyn Reuse>,
    /// Where tests of connections are logged.
    pub recorder: Arc<dyn Recorder>,
    /// What the writer of the log did so far.
    pub recorder_stats: Arc<dyn Fn() -> RecorderStats + Send + Sync>,
    /// What the process start decided.
    pub settings: AdminSettings,
    /// Ends the process in an orderly way.
    pub lifecycle: Arc<dyn Lifecycle>,
    /// Called after every write of configuration.
    pub reload: Reload,
    /// Changes that are being made, also those whose client is gone.
    pub tasks: TaskTracker,
}

/// What the process start decided about management.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// The version that is running.
    pub version: String,
    /// The OpenAPI document of all that the process serves, as JSON; [`openapi`](crate::openapi) is the part about
    /// management.
    pub document: Arc<str>,
    /// The commit it was built from.
    pub commit: Option<String>,
    /// `INITIAL_PASSWORD`.
    pub initial_password: Option<SecretString>,
    /// `MANAGEMENT_TOKEN`.
    pub management_token: Option<SecretString>,
    /// `JWT_SECRET`; the one in the database when absent.
    pub jwt_secret: Option<SecretString>,
    /// `AUTH_COOKIE_SECURE`.
    pub cookie_secure: bool,
    /// `TRUSTED_PROXIES`: peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `CORS_ORIGINS`: origins that may read management answers.
    pub cors_origins: Vec<String>,
    /// Whether the gateway listens beyond loopback.
    pub public_bind: bool,
    /// `REQUIRE_API_KEY=false` was set in so many words.
    pub open_to_all: bool,
    /// `ALLOW_PRIVATE_PROVIDER_URLS`.
    pub allow_private: bool,
    /// `ALLOW_REMOTE_LIFECYCLE`.
    pub allow_remote_lifecycle: bool,
    /// Whether a supervisor starts the process again.
    pub supervised: bool,
    /// The token that was printed at the start; works once, until a password is set.
    pub first_run_token: Option<SecretString>,
    /// Where the gateway listens.
    pub ports: Ports,
    /// Connections that the environment gives: shown and used, but not changed. Their names are the variables'.
    pub environment: Arc<[Connection]>,
    /// The names of what clients call, by which keys are restricted.
    pub endpoints: Vec<&'static str>,
}

/// Where the gateway listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// Everything.
    pub main: u16,
    /// Client routes only.
    pub api: Option<u16>,
    /// Management only.
    pub dashboard: Option<u16>,
}

/// Answers that are given again.
pub trait Reuse: Send + Sync {
    /// What the cache of answers did.
    fn cache_counts(&self) -> CacheCounts;
    /// What its tier of similar questions did.
    fn similarity(&self) -> SimilarityReport;
    /// Forgets the answers in memory of a model (as it was asked for), under a signature, or all; how many they
    /// were.
    fn clear_cache(&self, model: Option<&str>, signature: Option<&str>) -> usize;
    /// How many answers a request that is sent again would get.
    fn repeatable_answers(&self) -> usize;
    /// How many of them are under way.
    fn shared_answers(&self) -> usize;
    /// Repeats none of them; says how many they were.
    fn forget_answers(&self) -> usize;
}

impl Reuse for Engine {
    fn cache_counts(&self) -> CacheCounts {
        Self::cache_counts(self)
    }

    fn similarity(&self) -> SimilarityReport {
        Self::similarity(self)
    }

    fn clear_cache(&self, model: Option<&str>, signature: Option<&str>) -> usize {
        Self::clear_cache(self, model, signature)
    }

    fn repeatable_answers(&self) -> usize {
        Self::repeatable_answers(self)
    }

    fn shared_answers(&self) -> usize {
        Self::shared_answers(self)
    }

    fn forget_answers(&self) -> usize {
        Self::forget_answers(self)
    }
}

/// Says what would become of client requests.
pub trait Previews: Send + Sync {
    /// What would become of one.
    fn preview(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<Preview, WrongAsk>>;
    /// Serves one as if a client on this machine had sent it.
    fn ask(&self, ask: PreviewAsk) -> BoxFuture<'_, Result<PreviewAnswer, WrongAsk>>;
    /// Plays many of the same to a combo, in a copy of what is known: what would become of the first of them as things are, and
    /// of all of them.
    fn rehearse(&self, ask: RehearsedAsk) -> BoxFuture<'_, Result<(Preview, Rehearsal), NotRehearsed>>;
}

/// Requests of a client that are not sent.
#[derive(Debug, Clone)]
pub struct RehearsedAsk {
    /// Each of them. The random bits are those of the first; the others count on from there.
    pub ask: PreviewAsk,
    /// The name of the combo that it is for.
    pub combo: String,
    /// How many.
    pub requests: u32,
    /// For so long they are played at most.
    pub lasts: Duration,
}

/// Why nothing was played.
#[derive(Debug, Clone)]
pub enum NotRehearsed {
    /// It is no request.
    Wrong(WrongAsk),
    /// It leads there, and not to the combo.
    Elsewhere(String),
    /// There is no such combo in force.
    NoCombo,
    /// Another one is being played.
    Busy,
    /// The configuration cannot be read.
    Failed(String),
}

/// A client's request that is not sent.
#[derive(Debug, Clone)]
pub struct PreviewAsk {
    /// `POST`, but for some requests about what is kept.
    pub method: Method,
    /// The path, with its query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// What it holds.
    pub content: AskContent,
    /// Whose key it comes with.
    pub api_key: Option<ApiKeyId>,
    /// The random bits that it is decided with; others each time where there are none.
    pub seed: Option<u64>,
}

/// What a request holds.
#[derive(Debug, Clone)]
pub enum AskContent {
    /// Nothing, as requests about what is kept do.
    Nothing,
    /// A document.
    Body(Bytes),
    /// The fields of a form, in order: each with its name.
    Form(Vec<(String, AskField)>),
}

/// A field of a form.
#[derive(Debug, Clone)]
pub enum AskField {
    /// A text.
    Text(String),
    /// A file, of which only this is known.
    File {
        /// Its name.
        filename: String,
        /// Its type.
        content_type: Option<String>,
        /// Its length.
        bytes: u64,
        /// How long it plays, where it would tell.
        seconds: Option<f64>,
    },
}

/// What a client would have got.
#[derive(Debug, Clone)]
pub struct PreviewAnswer {
    /// HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// What makes no request of an ask.
#[derive(Debug, Clone)]
pub struct WrongAsk {
    /// The member that is to blame.
    pub field: Cow<'static, str>,
    /// In words.
    pub message: String,
}

/// Ends or replaces the process; both return at once.
pub trait Lifecycle: Send + Sync {
    /// Finishes running requests, then starts anew.
    fn restart(&self);
    /// Finishes running requests, then ends.
    fn shutdown(&self);
}

/// The address a request came from; the binary puts it into the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The state of the binary and what is kept here beside it.
pub(crate) struct Admin {
    pub(crate) state: AdminState,
    pub(crate) lockouts: Lockouts,
    /// Held over every change of the password, so that two of them cannot cross.
    pub(crate) password_change: Mutex<()>,
    /// Password hashing takes much memory on purpose; this bounds it.
    pub(crate) hashing: Semaphore,
    pub(crate) first_run_used: AtomicBool,
    /// Which models can be asked, for those who follow it.
    pub(crate) availability: Watch,
    /// Read once: where it cannot be decrypted, the database gives another one each time.
    pub(crate) jwt_secret: OnceCell<SecretString>,
}

impl Admin {
    pub(crate) fn new(state: AdminState) -> Self {
        Self {
            state,
            lockouts: Lockouts::default(),
            password_change: Mutex::new(()),
            hashing: Semaphore::new(2),
            first_run_used: AtomicBool::new(false),
            availability: Watch::default(),
            jwt_secret: OnceCell::new(),
        }
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.state.clock.now_ms()
    }

    /// The answer of an upstream's model list, if it is fresh.
    pub(crate) async fn cached_models(&self, id: &ConnectionId) -> Option<Bytes> {
        self.cache.get(&models_key(id), self.now_ms()).await
    }

    pub(crate) fn cache_models(&self, id: &ConnectionId, body: Bytes) {
        self.cache.put(&models_key(id), body, self.now_ms(), MODELS_TTL);
    }

    pub(crate) fn forget_models(&self, id: &ConnectionId) {
        self.cache.forget(&models_key(id));
    }

    pub(crate) fn first_run_token(&self) -> Option<&SecretString> {
        let used = self.first_run_used.load(Ordering::Acquire);
        self.state.settings.first_run_token.as_ref().filter(|_| !used)
    }
}

fn models_key(id: &ConnectionId) -> String {
    format!("models:{id}")
}

impl std::ops::Deref for Admin {
    type Target = AdminState;

    fn deref(&self) -> &AdminState {
        &self.state
    }
}
