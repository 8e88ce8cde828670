//! The open store, and everything a snapshot is built from, read in one piece.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use omniroute_domain::entity::Entities;
use tokio::sync::Mutex;

use crate::aliases::{self, Aliases};
use crate::answers::Answers;
use crate::api_keys::{self, ApiKeys};
use crate::audit::Audit;
use crate::bodies::BodyFiles;
use crate::budgets::{self, Budgets};
use crate::call_logs::CallLogs;
use crate::cleared::StatesCleared;
use crate::combo_mappings::{self, ComboMappings};
use crate::combo_memory::{self, ComboMemories};
use crate::combos::{self, Combos};
use crate::connection_headers;
use crate::connections::{self, Connections};
use crate::context_handoffs::{self, ContextHandoffs};
use crate::custom_models::{self, CustomModels};
use crate::decisions::RoutingDecisions;
use crate::error::StoreError;
use crate::fallback_chains::{self, FallbackChains};
use crate::key_states::{self, KeyStates};
use crate::learned_limits::LearnedLimitRows;
use crate::ledger::Ledger;
use crate::lockouts::Lockouts;
use crate::meta::{self, Meta};
use crate::migrate;
use crate::nodes::{self, Nodes};
use crate::options::{Location, StoreOptions};
use crate::plan_use::PlanUses;
use crate::policies::{self, Policies};
use crate::pool::{Pool, with_read, with_snapshot, with_write};
use crate::prices::{self, Prices};
use crate::quota_snapshots::QuotaSnapshots;
use crate::reasoning_memory::{self, ReasoningMemory};
use crate::resilience::Resilience;
use crate::response_owners::ResponseOwners;
use crate::revoked_tokens::RevokedTokens;
use crate::rotation_memory::RotationMemories;
use crate::secret_key::{self, Found};
use crate::session_affinity::SessionAffinity;
use crate::settings::{self, Settings};
use crate::similar_questions::SimilarQuestions;
use crate::text::{from_hex, random};
use crate::usage::Usage;
use crate::vault::{Cryptography, MasterKey, Vault};
use crate::webhooks::{self, Webhooks};

/// The embedded database, within the data directory.
pub(crate) const FILE: &str = "storage.sqlite";

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    /// The embedded database's file.
    file: Option<PathBuf>,
    vault: std::sync::RwLock<Arc<Vault>>,
    reloading: Mutex<()>,
    in_force: AtomicU64,
    /// Where bodies of requests are kept, if they are.
    bodies: std::sync::OnceLock<Arc<BodyFiles>>,
}

/// A row that cannot be used as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProblem {
    /// Which table.
    pub table: &'static str,
    /// Which row.
    pub id: String,
    /// What is wrong.
    pub message: String,
}

/// A row that somebody asks for: what is wrong with it is an error.
pub(crate) fn usable<T>(read: impl FnOnce(&mut Vec<RowProblem>) -> Option<T>) -> Result<T, StoreError> {
    let mut problems = Vec::new();
    let message = |mut problems: Vec<RowProblem>| problems.pop().map(|problem| problem.message);
    read(&mut problems).ok_or_else(|| StoreError::Damaged(message(problems).unwrap_or_default()))
}

/// How large the database is, and of which shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// Bytes of the database.
    pub size_bytes: u64,
    /// Bytes of the write-ahead log beside it; 0 where there is none.
    pub wal_bytes: u64,
    /// The last step of the schema that was applied.
    pub schema_version: i64,
}

/// Rows, and those among them that could not be used.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What could be read. A connection whose credential cannot be decrypted is among them, without it.
    pub entities: Entities,
    /// What is wrong with the rest.
    pub problems: Vec<RowProblem>,
}

impl Store {
    /// Opens the database, creates it when there is none, and brings its schema up to date.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let (pool, key) = match &options.location {
            Location::Sqlite { data_dir } => {
                secret_key::create_data_dir(data_dir)?;
                let file = data_dir.join(FILE);
                secret_key::create_private(&file);
                let open = async {
                    let pool = Pool::sqlite(&file).await?;
                    migrate::run(&pool).await?;
                    meta::prepare(&pool).await?;
                    meta::touch(&pool).await?;
                    Ok(pool)
                };
                let pool = open.await.map_err(|error: StoreError| error.at_path(&file))?;
                let meta = meta::load(&pool).await?;
                let key = match &options.encryption_key {
                    Some(setting) => Found::Key(secret_key::from_setting(setting, &meta.salt).await?),
                    None => secret_key::from_data_dir(data_dir, meta.key_check.is_none())?,
                };
                (pool, key)
            }
            Location::Postgres { url } => {
                let pool = Pool::postgres(secrecy::ExposeSecret::expose_secret(url)).await?;
                migrate::run(&pool).await?;
                meta::prepare(&pool).await?;
                let meta = meta::load(&pool).await?;
                let key = match &options.encryption_key {
                    Some(setting) => Found::Key(secret_key::from_setting(setting, &meta.salt).await?),
                    None => Found::None(
                        "set STORAGE_ENCRYPTION_KEY, the same for every process of this database".into(),
                    ),
                };
                (pool, key)
            }
        };
        let meta = meta::load(&pool).await?;
        let vault = match key {
            Found::Key(current) => unlock(&pool, &current, &options, &meta).await?,
            Found::None(reason) => Vault::closed(reason),
        };
        match vault.status() {
            Cryptography::MissingOrInvalid { reason } => {
                tracing::error!(reason, "stored credentials cannot be used");
            }
            Cryptography::Ok | Cryptography::RotationPending => seal_older(&pool, &vault).await,
        }
        let file = match options.location {
            Location::Sqlite { data_dir } => Some(data_dir.join(FILE)),
            Location::Postgres { .. } => None,
        };
        Ok(Self::over(pool, vault, file))
    }

    pub(crate) fn over(pool: Pool, vault: Vault, file: Option<PathBuf>) -> Self {
        let vault = std::sync::RwLock::new(Arc::new(vault));
        let (reloading, in_force) = (Mutex::new(()), AtomicU64::new(0));
        let bodies = std::sync::OnceLock::new();
        Self { inner: Arc::new(Inner { pool, file, vault, reloading, in_force, bodies }) }
    }

    /// Closes every connection, after the last statement.
    pub async fn close(&self) {
        self.inner.pool.close().await;
    }

    /// Whether secrets can be read and written.
    pub fn cryptography(&self) -> Cryptography {
        self.vault().status().clone()
    }

    /// Increases with every change of the configuration, whoever made it.
    pub async fn revision(&self) -> Result<u64, StoreError> {
        let text: String =
            with_read!(self.pool(), |db| sqlx::query_scalar(REVISION).fetch_one(&mut *db).await?);
        revision_of(&text)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.revision().await.map(drop)
    }

    /// Whether the database can be written to. Changes nothing.
    pub async fn ping_writer(&self) -> Result<(), StoreError> {
        with_write!(self.pool(), |db| {
            sqlx::query("UPDATE db_meta SET value = value WHERE 1 = 0").execute(&mut *db).await?;
        });
        Ok(())
    }

    /// Its size and shape.
    pub async fn facts(&self) -> Result<DatabaseFacts, StoreError> {
        let schema_version = migrate::version(self.pool()).await?;
        let (size_bytes, wal_bytes) = match (self.pool(), &self.inner.file) {
            (Pool::Postgres(pool), _) => {
                let size: i64 =
                    sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(pool).await?;
                (u64::try_from(size).unwrap_or(0), 0)
            }
            (Pool::Sqlite { .. }, Some(file)) => {
                (bytes_of(file), bytes_of(&file.with_extension("sqlite-wal")))
            }
            (Pool::Sqlite { .. }, None) => (0, 0),
        };
        Ok(DatabaseFacts { size_bytes, wal_bytes, schema_version })
    }

    /// Everything the snapshot is built from; what is wrong with single rows goes to the log.
    pub async fn entities(&self) -> Result<Entities, StoreError> {
        let loaded = self.load().await?;
        for problem in &loaded.problems {
            tracing::warn!(
                table = problem.table,
                id = problem.id,
                message = problem.message,
                "row cannot be used"
            );
        }
        Ok(loaded.entities)
    }

    /// Everything the snapshot is built from, as of one moment.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        let (revision, connections, nodes, models, keys, combos, aliases, budgets, prices, settings, rules) =
            with_snapshot!(self.pool(), |db| {
                let revision: String = sqlx::query_scalar(REVISION).fetch_one(&mut *db).await?;
                let connections: Vec<connections::Row> =
                    sqlx::query_as(connections::SELECT_ALL).fetch_all(&mut *db).await?;
                let nodes: Vec<nodes::Row> = sqlx::query_as(nodes::SELECT_ALL).fetch_all(&mut *db).await?;
                let models: Vec<(String, String)> =
                    sqlx::query_as(custom_models::SELECT_ALL).fetch_all(&mut *db).await?;
                let keys: Vec<api_keys::Row> =
                    sqlx::query_as(api_keys::SELECT_ALL).fetch_all(&mut *db).await?;
                let combos: Vec<combos::Row> = sqlx::query_as(combos::SELECT_ALL).fetch_all(&mut *db).await?;
                let aliases: Vec<(String, String)> =
                    sqlx::query_as(aliases::SELECT_ALL).fetch_all(&mut *db).await?;
                let budgets: Vec<budgets::Row> =
                    sqlx::query_as(budgets::SELECT_ALL).fetch_all(&mut *db).await?;
                let prices: Vec<(String, String, String)> =
                    sqlx::query_as(prices::SELECT_ALL).fetch_all(&mut *db).await?;
                let settings: Option<String> =
                    sqlx::query_scalar(settings::SELECT_RUNTIME).fetch_optional(&mut *db).await?;
                let policies: Vec<policies::Row> =
                    sqlx::query_as(policies::SELECT_ALL).fetch_all(&mut *db).await?;
                let chains: Vec<(String, String)> =
                    sqlx::query_as(fallback_chains::SELECT_ALL).fetch_all(&mut *db).await?;
                let mappings: Vec<combo_mappings::Row> =
                    sqlx::query_as(combo_mappings::SELECT_ALL).fetch_all(&mut *db).await?;
                let states: Vec<key_states::Row> =
                    sqlx::query_as(key_states::SELECT).bind(None::<&str>).fetch_all(&mut *db).await?;
                let cleared: Vec<(String, String)> =
                    sqlx::query_as(combo_memory::SELECT_CLEARED).fetch_all(&mut *db).await?;
                let rules = (policies, chains, mappings, states, cleared);
                (
                    revision,
                    connections,
                    nodes,
                    models,
                    keys,
                    combos,
                    aliases,
                    budgets,
                    prices,
                    settings,
                    rules,
                )
            });
        let vault = self.vault();
        let mut loaded = Loaded::default();
        let Loaded { entities, problems } = &mut loaded;
        entities.revision = revision_of(&revision)?;
        entities.connections =
            connections.into_iter().filter_map(|row| row.into_connection(&vault, problems)).collect();
        entities.nodes = nodes.into_iter().filter_map(|row| row.into_node(problems)).collect();
        entities.custom_models = models
            .iter()
            .flat_map(|(provider, list)| custom_models::parse(provider, list, problems))
            .collect();
        entities.api_keys = keys.into_iter().filter_map(|row| row.into_key(problems)).collect();
        entities.combos = combos.into_iter().filter_map(|row| combos::parse(row, problems)).collect();
        entities.aliases = aliases.into_iter().filter_map(|row| aliases::parse(row, problems)).collect();
        entities.budgets = budgets.iter().map(|row| budgets::parse(row, problems)).collect();
        entities.prices = prices::parse(prices, problems);
        entities.settings = settings::parse(settings.as_deref(), problems);
        let (policies, chains, mappings, states, cleared) = rules;
        key_states::assign(states, &mut entities.connections);
        entities.policies = policies.into_iter().filter_map(|row| policies::parse(row, problems)).collect();
        entities.fallback_chains =
            chains.into_iter().filter_map(|row| fallback_chains::parse(row, problems)).collect();
        entities.counts_cleared = cleared.into_iter().filter_map(combo_memory::parse_cleared).collect();
        entities.combo_mappings = mappings.into_iter().map(combo_mappings::parse).collect();
        Ok(loaded)
    }

    /// Accounts at providers.
    pub fn connections(&self) -> Connections<'_> {
        Connections(self)
    }

    /// What operators ended before its time.
    pub fn states_cleared(&self) -> StatesCleared<'_> {
        StatesCleared(self)
    }

    /// User-defined endpoints.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes(self)
    }

    /// One name for several targets.
    pub fn combos(&self) -> Combos<'_> {
        Combos(self)
    }

    /// What the operator forbids, limits or prefers.
    pub fn policies(&self) -> Policies<'_> {
        Policies(self)
    }

    /// Who else has a model.
    pub fn fallback_chains(&self) -> FallbackChains<'_> {
        FallbackChains(self)
    }

    /// Names of models that mean a combo.
    pub fn combo_mappings(&self) -> ComboMappings<'_> {
        ComboMappings(self)
    }

    /// Other names for models and combos.
    pub fn aliases(&self) -> Aliases<'_> {
        Aliases(self)
    }

    /// Models the operator added.
    pub fn custom_models(&self) -> CustomModels<'_> {
        CustomModels(self)
    }

    /// What keys, or everybody together, may spend.
    pub fn budgets(&self) -> Budgets<'_> {
        Budgets(self)
    }

    /// What was paid for.
    pub fn ledger(&self) -> Ledger<'_> {
        Ledger(self)
    }

    /// Prices that are not of the catalogue.
    pub fn prices(&self) -> Prices<'_> {
        Prices(self)
    }

    /// Client keys.
    pub fn api_keys(&self) -> ApiKeys<'_> {
        ApiKeys(self)
    }

    /// Settings and the administrator's password.
    pub fn settings(&self) -> Settings<'_> {
        Settings(self)
    }

    /// Facts about this installation.
    pub fn meta(&self) -> Meta<'_> {
        Meta(self)
    }

    /// Sessions that were signed out.
    pub fn revoked_tokens(&self) -> RevokedTokens<'_> {
        RevokedTokens(self)
    }

    /// Failed sign-ins.
    pub fn lockouts(&self) -> Lockouts<'_> {
        Lockouts(self)
    }

    /// Who did what.
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }

    /// Reasoning that clients do not bring back.
    pub fn reasoning_memory(&self) -> ReasoningMemory<'_> {
        ReasoningMemory(self)
    }

    /// Answers for whoever asks for the same.
    pub fn answers(&self) -> Answers<'_> {
        Answers(self)
    }

    /// Breakers of providers and locks of models.
    pub fn resilience(&self) -> Resilience<'_> {
        Resilience(self)
    }

    /// Which account made what vendors keep.
    pub fn response_owners(&self) -> ResponseOwners<'_> {
        ResponseOwners(self)
    }

    /// What is known of the single keys of accounts that have several.
    pub fn key_states(&self) -> KeyStates<'_> {
        KeyStates(self)
    }

    /// What vendors said of their limits.
    pub fn learned_limits(&self) -> LearnedLimitRows<'_> {
        LearnedLimitRows(self)
    }

    /// What was used of accounts' plans.
    pub fn plan_uses(&self) -> PlanUses<'_> {
        PlanUses(self)
    }

    /// Whose turn it is among the accounts of providers.
    pub fn rotation_memories(&self) -> RotationMemories<'_> {
        RotationMemories(self)
    }

    /// What vendors left of their quotas, from time to time.
    pub fn quota_snapshots(&self) -> QuotaSnapshots<'_> {
        QuotaSnapshots(self)
    }

    /// Which account a conversation stays with.
    pub fn session_affinity(&self) -> SessionAffinity<'_> {
        SessionAffinity(self)
    }

    /// Counters.
    pub fn usage(&self) -> Usage<'_> {
        Usage(self)
    }

    /// How requests were routed.
    pub fn routing_decisions(&self) -> RoutingDecisions<'_> {
        RoutingDecisions(self)
    }

    /// Questions that others may be close to.
    pub fn similar_questions(&self) -> SimilarQuestions<'_> {
        SimilarQuestions(self)
    }

    /// What conversations take with them to another account.
    pub fn context_handoffs(&self) -> ContextHandoffs<'_> {
        ContextHandoffs(self)
    }

    /// What traffic found out about combos.
    pub fn combo_memories(&self) -> ComboMemories<'_> {
        ComboMemories(self)
    }

    /// Addresses that are told of what happens.
    pub fn webhooks(&self) -> Webhooks<'_> {
        Webhooks(self)
    }

    /// The request log.
    pub fn call_logs(&self) -> CallLogs<'_> {
        CallLogs(self)
    }

    /// Encrypts every stored secret with the current key. Afterwards the previous key is needed no more; when it
    /// fails half-way it can be repeated. Gives the number of secrets that were encrypted anew.
    pub async fn rotate_encryption_key(&self) -> Result<u64, StoreError> {
        let vault = self.vault();
        // Kept answers can be made again.
        self.answers().clear(None, None, i64::MAX).await?;
        self.similar_questions().clear(None, None, i64::MAX).await?;
        let changed = connections::reseal(self, &vault).await?
            + connection_headers::reseal(self, &vault).await?
            + reasoning_memory::reseal(self, &vault).await?
            + context_handoffs::reseal(self, &vault).await?
            + webhooks::reseal(self, &vault).await?
            + meta::reseal(self, &vault).await?;
        *self.inner.vault.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Arc::new(Vault::rotated(&vault));
        Ok(changed)
    }

    pub(crate) fn body_files_cell(&self) -> &std::sync::OnceLock<Arc<BodyFiles>> {
        &self.inner.bodies
    }

    /// Where files of this process are: the database, and what is kept of requests.
    pub(crate) fn folders(&self) -> [Option<PathBuf>; 2] {
        let of_database = self.inner.file.as_deref().and_then(Path::parent).map(Path::to_owned);
        let of_bodies = self.inner.bodies.get().and_then(|files| files.root().parent().map(Path::to_owned));
        [of_database, of_bodies]
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// A key that only this installation can derive, to authenticate what clients carry for it; the same for every
    /// process on the database. While there is no encryption key it lives as long as the process.
    pub fn carrier_key(&self) -> [u8; 32] {
        let derived = self.vault().fingerprint("omniroute carriers v1").ok();
        let bytes = derived.and_then(|hex| from_hex(&hex)).and_then(|bytes| bytes.try_into().ok());
        bytes.unwrap_or_else(random::<32>)
    }

    pub(crate) fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.inner.vault.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The revision that `reload` put in force last; 0 before the first time.
    pub(crate) fn in_force(&self) -> &AtomicU64 {
        &self.inner.in_force
    }

    /// Held while a snapshot is built and put in force, so that an older one never replaces a newer one.
    pub(crate) fn reloading(&self) -> &Mutex<()> {
        &self.inner.reloading
    }
}

pub(crate) const REVISION: &str = "SELECT value FROM db_meta WHERE key = 'revision'";

pub(crate) fn revision_of(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged(format!("db_meta.revision is `{text}`")))
}

fn bytes_of(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

/// Encrypts what older versions stored in the clear. What cannot be written now is tried again at the next start.
async fn seal_older(pool: &Pool, vault: &Vault) {
    match connection_headers::seal_plain(pool, vault).await {
        Ok(0) => {}
        Ok(accounts) => tracing::info!(accounts, "headers that were stored in the clear are encrypted now"),
        Err(error) => tracing::warn!(%error, "headers of accounts are still stored in the clear"),
    }
}

async fn unlock(
    pool: &Pool,
    current: &MasterKey,
    options: &StoreOptions,
    meta: &meta::Stored,
) -> Result<Vault, StoreError> {
    let previous = match &options.previous_key {
        Some(setting) => Some(secret_key::from_setting(setting, &meta.salt).await?),
        None => None,
    };
    let vault = Vault::new(current, previous.as_ref(), &meta.salt, meta.key_check.as_deref())?;
    if meta.key_check.is_some() {
        return Ok(vault);
    }
    // Another process may have been first, with another key: what counts is what is stored.
    meta::insert(pool, meta::KEY_CHECK, &vault.key_check()?).await?;
    let meta = meta::load(pool).await?;
    Vault::new(current, previous.as_ref(), &meta.salt, meta.key_check.as_deref())
}
