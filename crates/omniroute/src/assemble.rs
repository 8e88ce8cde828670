//! The gateway put together: settings to store to snapshot to engine to listener. Reads top to bottom, as it starts;
//! and ends in the reverse order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use omniroute_admin::{AdminSettings, AdminState, Console, Courier, Ports as AdminPorts};
use omniroute_dialect::shape::Seal;
use omniroute_domain::entity::Connection;
use omniroute_domain::health::HealthMap;
use omniroute_domain::limit::Meter;
use omniroute_domain::snapshot::{BuildOptions, Snapshot};
use omniroute_engine::memory::{MemoryCache, MemoryCounters};
use omniroute_engine::ports::{Charge, Clock as _, Memory};
use omniroute_engine::serve::Ports;
use omniroute_engine::telemetry::Telemetry;
use omniroute_engine::time::SystemClock;
use omniroute_engine::transport::NetworkTransport;
use omniroute_engine::{Engine, Live};
use omniroute_store::{
    Location, QuestionMark, Recalled, Store, StoreError, StoreOptions, Writer, WriterOptions,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::additions;
use crate::http::{self, Gateway, Side};
use crate::lifecycle::{Ending, Stopper};
use crate::memory;
use crate::outbound::Outbound;
use crate::settings::{BootSettings, process_env};

/// Most bytes of answers that can be asked for again (model lists).
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Most bytes of reasoning that is kept for clients which do not bring it back.
const REASONING_BYTES: u64 = 64 * 1024 * 1024;
/// Most bytes of it that are read at the start.
const RECALLED_BYTES: usize = 48 * 1024 * 1024;
/// Most bytes of which account made what vendors keep, a hundred thousand of them.
const OWNER_BYTES: u64 = 20 * 1024 * 1024;
/// Most bytes of what was fetched for clients.
const MEDIA_BYTES: u64 = 64 * 1024 * 1024;
/// How often connections that waited too long for a request are closed, and answers forgotten that are too old.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Passwords that are no passwords.
const WEAK_PASSWORDS: [&str; 3] = ["CHANGEME", "123456", "password"];

/// Runs the gateway until it is told to stop.
pub(crate) async fn run(settings: BootSettings, console: Arc<Console>) -> anyhow::Result<Ending> {
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr()?;
    let mut listeners = vec![(listener, Side::Both)];
    for (port, side) in [(settings.api_port, Side::Clients), (settings.dashboard_port, Side::Management)] {
        if let Some(port) = port {
            listeners.push((listen(SocketAddr::new(settings.listen.ip(), port)).await?, side));
        }
    }
    let catalog = additions::catalog_with(&settings.data_dir)?;
    let clock = Arc::new(SystemClock);
    let environment = additions::environment_connections(catalog, &process_env, clock.now_ms())?;

    // What is stored, and what follows from it.
    let store = Store::open(store_options(&settings)).await.context("cannot open the database")?;
    store.keep_bodies_in(&settings.data_dir);
    let loaded = store.load().await.context("cannot read the configuration")?;
    let options = BuildOptions {
        allow_private: settings.allow_private,
        connections: environment.clone(),
        log_retention_days: settings.log_retention_days,
        call_log_max_entries: settings.call_log_max_entries,
        no_log_keys: settings.no_log_keys.clone(),
        semantic_cache_ttl_ms: settings.semantic_cache_ttl_ms,
        semantic_cache_max_size: settings.semantic_cache_max_size,
    };
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        if process_env(name).is_some_and(|proxy| !proxy.is_empty()) {
            tracing::warn!(
                "{name} is set, but upstreams are called directly: there is no support for proxies yet"
            );
        }
    }
    let health = HealthMap::default();
    let snapshot = Snapshot::build(&loaded.entities, catalog, &health, &options);
    for problem in &loaded.problems {
        tracing::warn!(table = problem.table, id = %problem.id, "{}", problem.message);
    }
    for problem in &snapshot.problems {
        tracing::warn!(entity = problem.entity, id = %problem.id, "{}", problem.message);
    }
    match store.combo_memories().recall(&snapshot).await {
        Ok(requests) => tracing::debug!(requests, "counts of combos made again"),
        Err(error) => tracing::warn!(%error, "what was known of combos cannot be read; they begin anew"),
    }
    let live = Arc::new(Live::new(snapshot, health));
    let has_password = store.settings().password_hash().await?.is_some();
    check_password(&settings, has_password)?;
    let snapshot = Arc::clone(&live.load());
    let spent = store.ledger().restore(&live.spending, &snapshot.budgets, clock.now_ms()).await;
    spent.context("cannot read what was spent")?;

    // What requests need.
    let tasks = TaskTracker::new();
    let writing = CancellationToken::new();
    let (recorder, writer) = Writer::start(store.clone(), WriterOptions::default(), &tasks, writing.clone());
    let combos = tasks.spawn(omniroute_store::keep_combos(store.clone(), live.clone(), writing.clone()));
    let telemetry = Arc::new(Telemetry::new(clock.now_ms()));
    let transport = Arc::new(Outbound::new(NetworkTransport::new(settings.connect_timeout, clock.clone())));
    let ports = Ports {
        transport: transport.clone(),
        counters: Arc::new(MemoryCounters::default()),
        recorder: recorder.clone(),
        reasoning: Arc::new(MemoryCache::new(REASONING_BYTES)),
        owners: Arc::new(MemoryCache::new(OWNER_BYTES)),
        media: Arc::new(MemoryCache::new(MEDIA_BYTES)),
        shelf: Arc::new(store.clone()),
        seal: Seal::new(store.carrier_key()),
        clock: clock.clone(),
    };
    let engine = Arc::new(Engine::new(
        live.clone(),
        ports,
        telemetry.clone(),
        settings.engine(),
        rand::random::<u64>(),
    ));
    recall(&store, &engine).await;
    let questions = recall_questions(&store, &engine).await;

    // What operators need.
    let stopper = Arc::new(Stopper::default());
    let changes = TaskTracker::new();
    let first_run_token = (!has_password && settings.initial_password.is_none()).then(new_token);
    let options = Arc::new(options);
    let built: http::Built = {
        let (store, options) = (store.clone(), options.clone());
        Arc::new(move |health| {
            let (store, options) = (store.clone(), options.clone());
            async move {
                let entities = store.entities().await.map_err(|error| error.to_string())?;
                Ok(Snapshot::build(&entities, catalog, &health, &options))
            }
            .boxed()
        })
    };
    let reload = {
        let (store, live, options, recorder, clock) =
            (store.clone(), live.clone(), options, recorder.clone(), clock.clone());
        let once: omniroute_admin::Reload = Arc::new(move || {
            let (store, live, options, recorder, clock) =
                (store.clone(), live.clone(), options.clone(), recorder.clone(), clock.clone());
            async move {
                omniroute_store::reload(&store, &live, catalog, &options, &*recorder, clock.now_ms())
                    .await
                    .map(drop)
                    .map_err(|e| e.to_string())
            }
            .boxed()
        });
        once
    };
    let admin = omniroute_admin::router(AdminState {
        store: store.clone(),
        live: live.clone(),
        catalog,
        transport: transport.clone(),
        clock: clock.clone(),
        cache: Arc::new(MemoryCache::new(CACHE_BYTES)),
        telemetry,
        console: console.clone(),
        previews: Arc::new(http::Explainer::new(engine.clone(), built)),
        reuse: engine.clone(),
        recorder: recorder.clone(),
        recorder_stats: Arc::new(move || recorder.stats()),
        settings: admin_settings(&settings, address.port(), first_run_token.clone(), environment)?,
        lifecycle: stopper.clone(),
        reload: reload.clone(),
        tasks: changes.clone(),
    });

    // Whoever is to be told of what happens.
    let courier =
        Courier::new(store.clone(), live.clone(), transport.clone(), clock.clone(), settings.allow_private);
    let stopped = stopper.stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = courier.run() => {}
        }
    });

    // Changes that other processes make to the same database.
    let watching = stopper.stop.clone();
    tasks.spawn(omniroute_store::watch(store.clone(), live.load().revision, watching, move || {
        let reload = reload.clone();
        async move {
            reload()
                .await
                .inspect_err(
                    |error| tracing::error!(%error, "cannot take over a change of the configuration"),
                )
                .is_ok()
        }
    }));
    tasks.spawn(omniroute_store::keep_house(store.clone(), live.clone(), clock, stopper.stop.clone()));
    let (taking, stopped) = (engine.clone(), stopper.stop.clone());
    let take = move |row| taking.restore(Memory::Question(row));
    tasks.spawn(omniroute_store::keep_questions(
        store.clone(),
        live.clone(),
        engine.clock.clone(),
        questions,
        take,
        stopped,
    ));
    let (comparing, stopped) = (engine.clone(), stopper.stop.clone());
    tasks.spawn(async move {
        let compare = async {
            loop {
                comparing.compare_answers().await;
            }
        };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = compare => {}
        }
    });
    let (watching, stopped) = (engine.clone(), stopper.stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = watching.watch_quotas() => {}
        }
    });
    let (looking, claims, stopped) = (engine.clone(), store.clone(), stopper.stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = looking.watch_awaited(&claims) => {}
        }
    });
    tasks.spawn(memory::give_back(stopper.stop.clone()));
    // Who reads the log along would keep the process from its end.
    let stopped = stopper.stop.clone();
    tasks.spawn(async move {
        stopped.cancelled().await;
        console.close();
    });
    // The first encrypted call should not have to read the system's certificates.
    let warm = transport.clone();
    tasks.spawn_blocking(move || warm.network.warm_up());

    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    greet(&settings, address.port(), first_run_token.as_ref())?;
    let signalled = stopper.clone();
    let signals = tasks.spawn(async move {
        crate::cli::interrupted().await;
        signalled.stop.cancel();
    });
    let (swept, answers, ended) = (transport.clone(), engine.clone(), stopper.stop.clone());
    tasks.spawn(async move {
        while tokio::time::timeout(SWEEP_EVERY, ended.cancelled()).await.is_err() {
            swept.network.sweep();
            answers.sweep();
        }
    });

    let proxies = settings.trusted_proxies.clone();
    let gateway = Arc::new(Gateway::new(engine.clone(), admin, settings.max_body_bytes, proxies));
    let serving = listeners.into_iter().map(|listener| {
        let (gateway, tasks, stop) = (gateway.clone(), tasks.clone(), stopper.stop.clone());
        http::serve(gateway, listener, tasks, stop, settings.shutdown_timeout)
    });
    futures_util::future::join_all(serving).await;

    // Requests are done: write what they left, then close.
    changes.close();
    if tokio::time::timeout(settings.shutdown_timeout, changes.wait()).await.is_err() {
        tracing::warn!("changes of the configuration were still being made when the time to stop had passed");
    }
    engine.end_asides().await;
    signals.abort();
    writing.cancel();
    writer.join().await;
    if let Err(error) = combos.await {
        tracing::error!(%error, "whose turn it is in combos was not written");
    }
    store.close().await;
    tracing::info!("stopped");
    Ok(stopper.ending())
}

/// Fills the memory with what earlier processes kept; whoever asks next is not to notice that there was a restart.
async fn recall(store: &Store, engine: &Engine) {
    let now_ms = engine.clock.now_ms();
    let restore = |row| engine.restore(Memory::Owner(row));
    if let Err(error) = store.response_owners().recall(now_ms, restore).await {
        tracing::warn!(%error, "which account made which answer cannot be read; they cannot be named any more");
    }
    if let Err(error) = recall_requests(store, engine, now_ms).await {
        tracing::warn!(%error, "today's requests of keys cannot be read; their limits per day begin anew");
    }
    let restore = |row| engine.restore(Memory::Limits(row));
    if let Err(error) = store.learned_limits().recall(now_ms, restore).await {
        tracing::warn!(%error, "learned rate limits cannot be read; they are learned anew");
    }
    let ttl = engine.live.load().settings.session_affinity_ttl_ms;
    let since_ms = now_ms.saturating_sub_unsigned(ttl);
    let restore = |row| engine.restore(Memory::Pinned(row));
    if let Err(error) = store.session_affinity().recall(since_ms, restore).await {
        tracing::warn!(%error, "which account a conversation stays with cannot be read; it may change");
    }
    let snapshot = engine.live.load().clone();
    if let Err(error) = store.rotation_memories().recall(&snapshot).await {
        tracing::warn!(%error, "whose turn it is among accounts cannot be read; they begin anew");
    }
    if let Err(error) = store.plan_uses().recall(&snapshot, now_ms).await {
        tracing::warn!(%error, "what was used of accounts' plans cannot be read; it is counted from nothing");
    }
    let restore = |record| engine.restore(Memory::Breaker(record));
    if let Err(error) = store.resilience().breakers(restore).await {
        tracing::warn!(%error, "breakers of providers cannot be read; all of them start closed");
    }
    let restore = |row| engine.restore(Memory::Lock(row));
    if let Err(error) = store.resilience().locks(now_ms, restore).await {
        tracing::warn!(%error, "locks of models cannot be read; none is in force");
    }
    let restore = |row| engine.restore(Memory::Handoff(Box::new(row)));
    match store.context_handoffs().recall(now_ms, restore).await {
        Ok(Recalled { unreadable: 0, .. }) => {}
        Ok(Recalled { unreadable, .. }) => {
            tracing::warn!(
                unreadable,
                "some summaries of conversations cannot be read with this encryption key"
            );
        }
        Err(error) => {
            tracing::warn!(%error, "summaries of conversations cannot be read; accounts are changed without");
        }
    }
    let restore = |row| engine.restore(Memory::Reasoning(row));
    match store.reasoning_memory().recall(now_ms, RECALLED_BYTES, restore).await {
        Ok(Recalled { rows, unreadable: 0 }) => tracing::debug!(rows, "reasoning recalled"),
        Ok(Recalled { rows, unreadable }) => {
            tracing::warn!(rows, unreadable, "some kept reasoning cannot be read with this encryption key");
        }
        Err(error) => tracing::warn!(%error, "kept reasoning cannot be read; conversations go on without"),
    }
}

/// Counts what keys with a limit per day asked for today. The sums of the database lose no request, but know only of those that
/// reached a provider: the few that failed before may be made once more.
async fn recall_requests(store: &Store, engine: &Engine, now_ms: i64) -> Result<(), StoreError> {
    let snapshot = engine.live.load().clone();
    for (key, amount) in store.usage().requests_today(now_ms).await? {
        let limits = snapshot.caller_by_id(&key).map(|caller| &caller.limits);
        let limit =
            limits.and_then(|limits| limits.iter().find(|(meter, _)| *meter == Meter::RequestsPerDay));
        if let Some(&(meter, limit)) = limit {
            engine.counters.restore(&[Charge { key, meter, limit, amount }], now_ms);
        }
    }
    Ok(())
}

/// Reads the questions that others may be close to, where that is wanted; says how far.
async fn recall_questions(store: &Store, engine: &Engine) -> QuestionMark {
    let mut mark = QuestionMark::default();
    if omniroute_store::is_wanted(&engine.live) {
        let restore = |row| engine.restore(Memory::Question(row));
        let read = store.similar_questions().since(&mut mark, engine.clock.now_ms(), restore).await;
        match read {
            Ok(rows) => tracing::debug!(rows, "questions recalled"),
            Err(error) => tracing::warn!(%error, "kept questions cannot be read yet; they are not found"),
        }
    }
    mark
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; is another gateway running there?"))
}

fn store_options(settings: &BootSettings) -> StoreOptions {
    StoreOptions {
        location: match &settings.database_url {
            Some(url) => Location::Postgres { url: url.clone() },
            None => Location::Sqlite { data_dir: settings.data_dir.clone() },
        },
        encryption_key: settings.encryption_key.clone(),
        previous_key: settings.previous_encryption_key.clone(),
    }
}

fn admin_settings(
    settings: &BootSettings,
    port: u16,
    first_run_token: Option<SecretString>,
    environment: Vec<Connection>,
) -> anyhow::Result<AdminSettings> {
    let document = http::document(env!("CARGO_PKG_VERSION")).to_json();
    let document = document.context("cannot write what /api/openapi.json answers")?.into();
    Ok(AdminSettings {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        document,
        commit: option_env!("OMNIROUTE_COMMIT").map(str::to_owned),
        initial_password: settings.initial_password.clone(),
        management_token: settings.management_token.clone(),
        jwt_secret: settings.jwt_secret.clone(),
        cookie_secure: settings.cookie_secure,
        trusted_proxies: settings.trusted_proxies.clone(),
        cors_origins: settings.cors_origins.clone(),
        public_bind: !settings.listen.ip().is_loopback(),
        open_to_all: settings.require_api_key == Some(false),
        allow_private: settings.allow_private,
        allow_remote_lifecycle: settings.allow_remote_lifecycle,
        supervised: settings.supervised,
        first_run_token,
        ports: AdminPorts { main: port, api: settings.api_port, dashboard: settings.dashboard_port },
        environment: environment.into(),
        endpoints: crate::http::endpoints(),
    })
}

/// Beyond loopback nobody listens without a password that deserves the name.
fn check_password(settings: &BootSettings, has_password: bool) -> anyhow::Result<()> {
    if settings.require_api_key == Some(false) {
        tracing::warn!("REQUIRE_API_KEY=false: everybody who reaches this address spends your accounts");
    }
    if settings.listen.ip().is_loopback() || has_password {
        return Ok(());
    }
    match &settings.initial_password {
        None => bail!(
            "HOST is {}, but no administrator's password is set: set INITIAL_PASSWORD, or start on 127.0.0.1 first and \
             set one there",
            settings.listen.ip()
        ),
        Some(password) if WEAK_PASSWORDS.contains(&password.expose_secret()) => {
            bail!(
                "INITIAL_PASSWORD is one that everybody knows; choose another before listening beyond this machine"
            )
        }
        Some(_) => Ok(()),
    }
}

/// 256 random bits from the system, as text.
fn new_token() -> SecretString {
    let bytes: [u8; 32] = rand::random();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.into()
}

/// What a person needs to go on, on standard output.
fn greet(settings: &BootSettings, port: u16, first_run_token: Option<&SecretString>) -> anyhow::Result<()> {
    use std::fmt::Write as _;
    let host = if settings.listen.ip().is_unspecified() {
        "127.0.0.1".into()
    } else {
        settings.listen.ip().to_string()
    };
    let url =
        if host.contains(':') { format!("http://[{host}]:{port}") } else { format!("http://{host}:{port}") };
    let mut text = format!("OmniRoute {} on {url}\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "  data in {}", settings.data_dir.display());
    let _ = writeln!(text, "\nTry it, no key needed:");
    let _ = writeln!(text, "  curl {url}/v1/chat/completions -H 'content-type: application/json' \\");
    let _ = writeln!(
        text,
        "    -d '{{\"model\":\"sim/echo\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'"
    );
    if let Some(token) = first_run_token {
        let _ = writeln!(
            text,
            "\nSign in the first time with this token; it works once, until a password is set:"
        );
        let _ = writeln!(
            text,
            "  curl -c cookies.txt {url}/api/auth/login -H 'content-type: application/json' \\"
        );
        let _ = writeln!(text, "    -d '{{\"token\":\"{}\"}}'", token.expose_secret());
        let _ = writeln!(
            text,
            "  curl -b cookies.txt {url}/api/settings/require-login -H 'content-type: application/json' \\"
        );
        let _ = writeln!(text, "    -d '{{\"password\":\"<your password>\"}}'");
    }
    crate::cli::print(text.trim_end())
}
