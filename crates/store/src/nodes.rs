//! User-defined endpoints.

use std::collections::BTreeMap;

use omniroute_domain::entity::{Node, NodeType};
use omniroute_provider::ProviderId;

use crate::connections::{forget, lock_rows};
use crate::error::StoreError;
use crate::pool::{bump_revision, with_read, with_write};
use crate::store::{RowProblem, Store, usable};
use crate::text::{from_json, to_json};

/// Access to the nodes.
#[derive(Debug, Clone, Copy)]
pub struct Nodes<'a>(pub(crate) &'a Store);

macro_rules! columns {
    () => {
        "id, type, name, prefix, api_type, base_url, chat_path, models_path, headers, allow_private, created_at, \
         updated_at"
    };
}

/// Every row, in order.
pub(crate) const SELECT_ALL: &str =
    concat!("SELECT ", columns!(), " FROM provider_nodes ORDER BY created_at, id");
const SELECT_ONE: &str = concat!("SELECT ", columns!(), " FROM provider_nodes WHERE id = $1");

/// Refuses a prefix that another node has.
macro_rules! refuse_duplicates {
    ($db:ident, $node:expr) => {
        let other: Option<String> =
            sqlx::query_scalar("SELECT name FROM provider_nodes WHERE prefix = $1 AND id <> $2")
                .bind(&$node.prefix)
                .bind($node.id.as_str())
                .fetch_optional(&mut *$db)
                .await?;
        if let Some(other) = other {
            return Err(StoreError::Conflict {
                field: "prefix",
                message: format!("the node `{other}` already has the prefix `{}`", $node.prefix),
            });
        }
    };
}

/// Leaves the function where an id is that of a node, and the node is gone. Behind [`bump_revision`], so that nobody takes it away
/// between asking and writing.
macro_rules! check_node {
    ($db:ident, $provider:expr) => {
        let provider: &omniroute_provider::ProviderId = $provider;
        if omniroute_provider::registry::is_node_id(provider.as_str()) {
            let node: Option<String> = sqlx::query_scalar("SELECT id FROM provider_nodes WHERE id = $1")
                .bind(provider.as_str())
                .fetch_optional(&mut *$db)
                .await?;
            if node.is_none() {
                return Err($crate::error::StoreError::NotFound { what: "node", id: provider.to_string() });
            }
        }
    };
}
pub(crate) use check_node;

impl Nodes<'_> {
    /// Oldest first.
    pub async fn list(&self) -> Result<Vec<Node>, StoreError> {
        let rows: Vec<Row> =
            with_read!(self.0.pool(), |db| sqlx::query_as(SELECT_ALL).fetch_all(&mut *db).await?);
        let mut problems = Vec::new();
        Ok(rows.into_iter().filter_map(|row| row.into_node(&mut problems)).collect())
    }

    /// One of them.
    pub async fn get(&self, id: &ProviderId) -> Result<Option<Node>, StoreError> {
        let row: Option<Row> = with_read!(self.0.pool(), |db| {
            sqlx::query_as(SELECT_ONE).bind(id.as_str()).fetch_optional(&mut *db).await?
        });
        row.map(|row| usable(|problems| row.into_node(problems))).transpose()
    }

    /// Adds one.
    pub async fn insert(&self, node: &Node) -> Result<(), StoreError> {
        let headers = to_json(&node.headers)?;
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            refuse_duplicates!(db, node);
            sqlx::query(
                "INSERT INTO provider_nodes (id, type, name, prefix, api_type, base_url, chat_path, models_path,
                 headers, allow_private, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            )
            .bind(node.id.as_str())
            .bind(node.node_type.as_str())
            .bind(&node.name)
            .bind(&node.prefix)
            .bind(node.api_type.as_deref())
            .bind(&node.base_url)
            .bind(node.chat_path.as_deref())
            .bind(node.models_path.as_deref())
            .bind(&headers)
            .bind(node.allow_private)
            .bind(node.created_at)
            .bind(node.updated_at)
            .execute(&mut *db)
            .await?;
        });
        Ok(())
    }

    /// Changes one in one piece: nobody else's change comes between reading and writing. When `change` refuses, nothing is
    /// written and its reason comes back.
    pub async fn change<E>(
        &self,
        id: &ProviderId,
        change: impl FnOnce(&mut Node) -> Result<(), E>,
    ) -> Result<Result<Node, E>, StoreError> {
        let changed = with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            let row: Option<Row> =
                sqlx::query_as(SELECT_ONE).bind(id.as_str()).fetch_optional(&mut *db).await?;
            let row = row.ok_or_else(|| StoreError::NotFound { what: "node", id: id.to_string() })?;
            let mut node = usable(|problems| row.into_node(problems))?;
            if let Err(refusal) = change(&mut node) {
                return Ok(Err(refusal));
            }
            refuse_duplicates!(db, &node);
            sqlx::query(
                "UPDATE provider_nodes SET type = $2, name = $3, prefix = $4, api_type = $5, base_url = $6,
                 chat_path = $7, models_path = $8, headers = $9, allow_private = $10, updated_at = $11 WHERE id = $1",
            )
            .bind(node.id.as_str())
            .bind(node.node_type.as_str())
            .bind(&node.name)
            .bind(&node.prefix)
            .bind(node.api_type.as_deref())
            .bind(&node.base_url)
            .bind(node.chat_path.as_deref())
            .bind(node.models_path.as_deref())
            .bind(to_json(&node.headers)?)
            .bind(node.allow_private)
            .bind(node.updated_at)
            .execute(&mut *db)
            .await?;
            node
        });
        Ok(Ok(changed))
    }

    /// Whether there was one. Its connections, what is known of them, its added models and its prices go with it: another node
    /// gets another id, even with the same prefix.
    pub async fn delete(&self, id: &ProviderId) -> Result<bool, StoreError> {
        with_write!(self.0.pool(), |db| {
            bump_revision!(db);
            lock_rows!(db, id.as_str());
            let removed = sqlx::query("DELETE FROM provider_nodes WHERE id = $1")
                .bind(id.as_str())
                .execute(&mut *db)
                .await?
                .rows_affected();
            if removed == 0 {
                return Ok(false);
            }
            let connections: Vec<String> =
                sqlx::query_scalar("DELETE FROM provider_connections WHERE provider = $1 RETURNING id")
                    .bind(id.as_str())
                    .fetch_all(&mut *db)
                    .await?;
            for connection in &connections {
                forget!(db, connection);
            }
            sqlx::query(
                "DELETE FROM key_value WHERE namespace IN ('customModels', 'pricing', 'pricingSynced') AND key = $1",
            )
            .bind(id.as_str())
            .execute(&mut *db)
            .await?;
        });
        Ok(true)
    }
}

/// As stored.
#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    id: String,
    r#type: String,
    name: String,
    prefix: String,
    api_type: Option<String>,
    base_url: String,
    chat_path: Option<String>,
    models_path: Option<String>,
    headers: String,
    allow_private: bool,
    created_at: i64,
    updated_at: i64,
}

impl Row {
    /// The node; `None` when the row cannot be used.
    pub(crate) fn into_node(self, problems: &mut Vec<RowProblem>) -> Option<Node> {
        let read = || -> Result<_, String> {
            Ok((
                parse_node_type(&self.r#type).ok_or_else(|| format!("unknown type `{}`", self.r#type))?,
                from_json::<BTreeMap<String, String>>("headers", &self.headers)?,
            ))
        };
        let (node_type, headers) = match read() {
            Ok(values) => values,
            Err(message) => {
                problems.push(RowProblem { table: "provider_nodes", id: self.id, message });
                return None;
            }
        };
        Some(Node {
            id: self.id.into(),
            node_type,
            name: self.name,
            prefix: self.prefix,
            api_type: self.api_type,
            base_url: self.base_url,
            chat_path: self.chat_path,
            models_path: self.models_path,
            headers,
            allow_private: self.allow_private,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

fn parse_node_type(text: &str) -> Option<NodeType> {
    [
        NodeType::OpenaiCompatible,
        NodeType::AnthropicCompatible,
        NodeType::GeminiCompatible,
        NodeType::OllamaCompatible,
    ]
    .into_iter()
    .find(|node_type| node_type.as_str() == text)
}
