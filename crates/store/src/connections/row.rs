//! A connection as it is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use omniroute_domain::entity::{AuthType, Connection, ConnectionOptions, ConnectionStatus, TestStatus};

use super::keys::{open_pool, place};
use super::{TABLE, UNREADABLE};
use crate::connection_headers;
use crate::store::RowProblem;
use crate::text::from_json;
use crate::vault::Vault;

/// As stored.
#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    id: String,
    provider: String,
    auth_type: String,
    name: String,
    display_name: Option<String>,
    email: Option<String>,
    priority: i64,
    global_priority: Option<i64>,
    is_active: bool,
    api_key: Option<String>,
    expires_at: Option<i64>,
    provider_specific_data: String,
    default_model: Option<String>,
    rate_limit_protection: bool,
    max_concurrent: Option<i64>,
    health_check_interval: Option<i64>,
    group: Option<String>,
    tags: String,
    test_status: String,
    last_tested: Option<i64>,
    last_used_at: Option<i64>,
    last_error: Option<String>,
    last_error_at: Option<i64>,
    last_error_type: Option<String>,
    last_error_source: Option<String>,
    error_code: Option<i64>,
    backoff_level: i64,
    rate_limited_until: Option<i64>,
    consecutive_use_count: i64,
    created_at: i64,
    updated_at: i64,
    api_keys: Option<String>,
}

impl Row {
    /// The connection; `None` when the row cannot be used at all. A credential that cannot be decrypted, also in a header, is
    /// left out and shown in the status.
    pub(crate) fn into_connection(
        self,
        vault: &Arc<Vault>,
        problems: &mut Vec<RowProblem>,
    ) -> Option<Connection> {
        let mut problem = |id: &str, message: String| {
            problems.push(RowProblem { table: TABLE, id: id.to_owned(), message });
        };
        let read = || -> Result<_, String> {
            Ok((
                parse_auth_type(&self.auth_type)
                    .ok_or_else(|| format!("unknown auth_type `{}`", self.auth_type))?,
                from_json::<ConnectionOptions>("provider_specific_data", &self.provider_specific_data)?,
                from_json::<Vec<String>>("tags", &self.tags)?,
            ))
        };
        let (auth_type, mut options, tags) = match read() {
            Ok(values) => values,
            Err(message) => {
                problem(&self.id, message);
                return None;
            }
        };
        let mut status = ConnectionStatus {
            test_status: parse_test_status(&self.test_status),
            last_tested: self.last_tested,
            last_used_at: self.last_used_at,
            last_error: self.last_error,
            last_error_at: self.last_error_at,
            last_error_type: self.last_error_type,
            last_error_source: self.last_error_source,
            error_code: self.error_code,
            backoff_level: self.backoff_level,
            rate_limited_until: self.rate_limited_until,
            consecutive_use_count: self.consecutive_use_count,
        };
        let (api_key, unreadable) = match self.api_key.map(|stored| vault.open(&place(&self.id), &stored)) {
            None => (None, None),
            Some(Ok(secret)) => (Some(secret), None),
            Some(Err(error)) => (None, Some(format!("{UNREADABLE}: {error}"))),
        };
        let of_headers = connection_headers::open(vault, &self.id, &mut options.extra_headers);
        for message in of_headers.iter().chain(&unreadable) {
            problem(&self.id, message.clone());
        }
        if let Some(message) = unreadable.or(of_headers) {
            status.test_status = TestStatus::Error;
            status.last_error = Some(message);
            status.last_error_type = Some("credentials".into());
            status.last_error_source = Some("local".into());
        }
        if let Some(stored) = self.api_keys {
            match open_pool(vault, &self.id, &stored) {
                Ok(keys) => options.api_keys = keys,
                Err(error) => problem(&self.id, format!("cannot read the further keys: {error}")),
            }
        }
        Some(Connection {
            id: self.id.into(),
            provider: self.provider.into(),
            auth_type,
            name: self.name,
            display_name: self.display_name,
            email: self.email,
            priority: self.priority,
            global_priority: self.global_priority,
            is_active: self.is_active,
            api_key,
            options,
            default_model: self.default_model,
            rate_limit_protection: self.rate_limit_protection,
            max_concurrent: self.max_concurrent.and_then(|limit| u32::try_from(limit).ok()),
            health_check_interval: self.health_check_interval,
            group: self.group,
            tags,
            expires_at: self.expires_at,
            status,
            key_statuses: BTreeMap::new(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

pub(super) const fn auth_type_text(auth_type: AuthType) -> &'static str {
    match auth_type {
        AuthType::Apikey => "apikey",
        AuthType::Oauth => "oauth",
        AuthType::None => "none",
        AuthType::Aws => "aws",
        AuthType::Gcp => "gcp",
    }
}

fn parse_auth_type(text: &str) -> Option<AuthType> {
    [AuthType::Apikey, AuthType::Oauth, AuthType::None, AuthType::Aws, AuthType::Gcp]
        .into_iter()
        .find(|auth_type| auth_type_text(*auth_type) == text)
}

pub(crate) fn parse_test_status(text: &str) -> TestStatus {
    [
        TestStatus::Active,
        TestStatus::Error,
        TestStatus::Unavailable,
        TestStatus::Expired,
        TestStatus::Banned,
        TestStatus::CreditsExhausted,
    ]
    .into_iter()
    .find(|status| status.as_str() == text)
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for auth_type in [AuthType::Apikey, AuthType::Oauth, AuthType::None, AuthType::Aws, AuthType::Gcp] {
            assert_eq!(parse_auth_type(auth_type_text(auth_type)), Some(auth_type));
            assert_eq!(
                serde_json::to_string(&auth_type).unwrap(),
                format!("\"{}\"", auth_type_text(auth_type))
            );
        }
        for status in
            [TestStatus::Unknown, TestStatus::Active, TestStatus::Banned, TestStatus::CreditsExhausted]
        {
            assert_eq!(parse_test_status(status.as_str()), status);
        }
    }
}
