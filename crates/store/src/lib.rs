//! What the gateway remembers: configuration, usage and logs, in SQLite or Postgres.
//!
//! The database is never on a request's path. Requests read a snapshot that [`reload`] builds from the rows, and
//! hand what happened to the [`StoreRecorder`], which a [`Writer`] task drains in batches. Everything else are typed
//! functions for the management API, one file per table. SQL is written once for both engines (`pool.rs`).

mod aliases;
mod answers;
mod api_keys;
mod audit;
mod bodies;
mod budgets;
mod call_logs;
mod cleared;
mod combo_mappings;
mod combo_memory;
mod combos;
mod connection_headers;
mod connections;
mod context_handoffs;
mod custom_models;
mod decisions;
mod disk;
mod error;
mod fallback_chains;
mod kept_for_a_time;
mod key_states;
mod learned_limits;
mod ledger;
mod lockouts;
mod look;
mod meta;
mod migrate;
mod nodes;
mod options;
mod plan_use;
mod policies;
mod pool;
mod prices;
mod prune;
mod quota_snapshots;
mod reasoning_memory;
mod reload;
mod resilience;
mod response_owners;
mod revoked_tokens;
mod rotation_memory;
mod secret_key;
mod session_affinity;
mod settings;
mod similar_questions;
mod store;
mod text;
mod usage;
mod usage_kinds;
mod vault;
mod watch;
mod webhooks;
mod writer;

pub use answers::Answers;
pub use api_keys::{ApiKeys, Successor};
pub use audit::{Audit, AuditEvent, AuditQuery, AuditRecord};
pub use bodies::{BodyState, Document, FoundBodies, Message, Pipeline};
pub use budgets::Budgets;
pub use call_logs::{AttemptDetail, CallLog, CallLogLine, CallLogQuery, CallLogs, LoggedLoss};
pub use cleared::StatesCleared;
pub use combo_mappings::ComboMappings;
pub use combo_memory::{ComboMemories, keep_combos};
pub use combos::Surroundings;
pub use connections::{ConnectionFilter, Connections};
pub use context_handoffs::ContextHandoffs;
pub use custom_models::CustomModels;
pub use decisions::{LoggedCandidate, LoggedDecision, LoggedObserved, RoutingDecisions};
pub use disk::DiskFacts;
pub use error::StoreError;
pub use fallback_chains::FallbackChains;
pub use key_states::KeyStates;
pub use learned_limits::LearnedLimitRows;
pub use ledger::{Ledger, LedgerRow};
pub use lockouts::{Lockout, Lockouts};
pub use meta::Meta;
pub use nodes::Nodes;
pub use options::{Location, StoreOptions};
pub use plan_use::PlanUses;
pub use policies::Policies;
pub use prices::Prices;
pub use prune::{Pruned, keep_house};
pub use quota_snapshots::{QuotaSnapshot, QuotaSnapshots, ToldFigures};
pub use reasoning_memory::{ReasoningMemory, Recalled};
pub use reload::reload;
pub use resilience::Resilience;
pub use response_owners::ResponseOwners;
pub use revoked_tokens::{RevokedToken, RevokedTokens};
pub use rotation_memory::RotationMemories;
pub use session_affinity::SessionAffinity;
pub use settings::{PasswordHash, Settings, SettingsChange};
pub use similar_questions::{QuestionMark, SimilarQuestions, is_wanted, keep_questions};
pub use store::{DatabaseFacts, Loaded, RowProblem, Store};
pub use usage::{
    AccountUsage, ApiKeyUsage, ConnectionUsage, ModelUsage, Period, ProviderUsage, Usage, UsageCounters,
    UsageHistory,
};
pub use usage_kinds::KindUsage;
pub use vault::Cryptography;
pub use watch::watch;
pub use webhooks::{Webhook, Webhooks};
pub use writer::{RecorderStats, StoreRecorder, Writer, WriterHandle, WriterOptions};
