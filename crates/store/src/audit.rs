//! Who did what, and whether it worked.

use crate::error::StoreError;
use crate::pool::{with_read, with_write};
use crate::store::Store;

pub(crate) const MAX_DETAILS: usize = 8 * 1024;

/// Access to the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a>(pub(crate) &'a Store);

/// Something that was done or tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditEvent {
    /// When.
    pub timestamp: i64,
    /// What (`auth.login.success`, …).
    pub action: String,
    /// Who (`admin`, `key:<name>`, `system`, `anonymous`).
    pub actor: String,
    /// To which row.
    pub target: Option<String>,
    /// Of which kind.
    pub resource_type: Option<String>,
    /// `success` or `failure`.
    pub status: String,
    /// More, as JSON, without secrets.
    pub details: Option<String>,
    /// From where.
    pub ip_address: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
}

/// Which events to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only this action, or with a trailing `*` all that begin so.
    pub action: Option<String>,
    /// Only of this actor.
    pub actor: Option<String>,
    /// From here on.
    pub since: Option<i64>,
    /// Before here.
    pub until: Option<i64>,
    /// Page size.
    pub limit: u32,
    /// Rows to skip.
    pub offset: u32,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number.
    pub id: i64,
    /// What happened.
    pub event: AuditEvent,
}

macro_rules! condition {
    () => {
        "($1 IS NULL OR (action LIKE $1 ESCAPE '\\')) AND ($2 IS NULL OR actor = $2) \
         AND ($3 IS NULL OR timestamp >= $3) AND ($4 IS NULL OR timestamp < $4)"
    };
}

/// Adds an event in a transaction.
macro_rules! append {
    ($db:ident, $event:expr) => {{
        use $crate::text::clip;
        let event: &$crate::audit::AuditEvent = $event;
        sqlx::query(
            "INSERT INTO audit_log (timestamp, action, actor, target, resource_type, status, details, ip_address,
             request_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(event.timestamp)
        .bind(clip(&event.action, 100))
        .bind(clip(&event.actor, 200))
        .bind(event.target.as_deref().map(|target| clip(target, 200)))
        .bind(event.resource_type.as_deref().map(|resource_type| clip(resource_type, 100)))
        .bind(clip(&event.status, 20))
        .bind(event.details.as_deref().map(|details| clip(details, $crate::audit::MAX_DETAILS)))
        .bind(event.ip_address.as_deref().map(|address| clip(address, 64)))
        .bind(event.request_id.as_deref().map(|id| clip(id, 128)))
        .execute(&mut *$db)
        .await?;
    }};
}

pub(crate) use append;

impl Audit<'_> {
    /// Adds an event.
    pub async fn append(&self, event: &AuditEvent) -> Result<(), StoreError> {
        with_write!(self.0.pool(), |db| {
            append!(db, event);
        });
        Ok(())
    }

    /// Newest first, with the number of all that match.
    pub async fn list(&self, query: &AuditQuery) -> Result<(Vec<AuditRecord>, u64), StoreError> {
        let action = query.action.as_deref().map(|action| match action.strip_suffix('*') {
            Some(start) => like(start) + "%",
            None => like(action),
        });
        let (rows, total): (Vec<Row>, i64) = with_read!(self.0.pool(), |db| {
            let total = sqlx::query_scalar(concat!("SELECT COUNT(*) FROM audit_log WHERE ", condition!()))
                .bind(action.as_deref())
                .bind(query.actor.as_deref())
                .bind(query.since)
                .bind(query.until)
                .fetch_one(&mut *db)
                .await?;
            let rows = sqlx::query_as(concat!(
                "SELECT id, timestamp, action, actor, target, resource_type, status, details, ip_address, request_id \
                 FROM audit_log WHERE ",
                condition!(),
                " ORDER BY timestamp DESC, id DESC LIMIT $5 OFFSET $6"
            ))
            .bind(action.as_deref())
            .bind(query.actor.as_deref())
            .bind(query.since)
            .bind(query.until)
            .bind(i64::from(query.limit))
            .bind(i64::from(query.offset))
            .fetch_all(&mut *db)
            .await?;
            (rows, total)
        });
        Ok((rows.into_iter().map(Row::into_record).collect(), total.unsigned_abs()))
    }
}

/// Text for `LIKE … ESCAPE '\'` that means itself.
pub(crate) fn like(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 4);
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    timestamp: i64,
    action: String,
    actor: String,
    target: Option<String>,
    resource_type: Option<String>,
    status: String,
    details: Option<String>,
    ip_address: Option<String>,
    request_id: Option<String>,
}

impl Row {
    fn into_record(self) -> AuditRecord {
        AuditRecord {
            id: self.id,
            event: AuditEvent {
                timestamp: self.timestamp,
                action: self.action,
                actor: self.actor,
                target: self.target,
                resource_type: self.resource_type,
                status: self.status,
                details: self.details,
                ip_address: self.ip_address,
                request_id: self.request_id,
            },
        }
    }
}
