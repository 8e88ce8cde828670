//! What a probe's outcome means, for people and for the connection's status.

use omniroute_domain::entity::{ConnectionStatus, TestStatus};
use omniroute_provider::FailureKind;
use omniroute_provider::scrub::scrub;
use serde::Serialize;
use utoipa::ToSchema;

use super::Verdict;

/// What is the matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Diagnosis {
    pub(crate) r#type: DiagnosisType,
    pub(crate) source: DiagnosisSource,
    pub(crate) message: Option<String>,
    /// The upstream's error code, or its status as text.
    pub(crate) code: Option<String>,
}

/// The classes of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DiagnosisType {
    Ok,
    UpstreamAuthError,
    UpstreamRateLimited,
    UpstreamUnavailable,
    UpstreamError,
    NetworkError,
    Timeout,
    MissingCredentials,
    Unsupported,
}

/// Who said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DiagnosisSource {
    Upstream,
    Local,
}

impl Verdict {
    /// What is the matter.
    pub(crate) fn diagnosis(&self) -> Diagnosis {
        if let Some(message) = &self.unsupported {
            return Diagnosis {
                r#type: DiagnosisType::Unsupported,
                source: DiagnosisSource::Local,
                message: Some(message.clone()),
                code: None,
            };
        }
        let source = if self.status.is_some() { DiagnosisSource::Upstream } else { DiagnosisSource::Local };
        let Some(failure) = &self.failure else {
            return Diagnosis { r#type: DiagnosisType::Ok, source, message: None, code: None };
        };
        let code = failure.upstream.code.clone().or_else(|| self.status.map(|status| status.to_string()));
        Diagnosis { r#type: type_of(failure.kind), source, message: self.message(), code }
    }

    /// What went wrong, in words that hold no secret.
    pub(crate) fn message(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        let text = scrub(&failure.upstream.message);
        Some(if text.is_empty() {
            format!("the upstream answered {}", self.status.unwrap_or(0))
        } else {
            text
        })
    }

    /// The status of a connection after this probe. A good one clears cooldown and errors.
    pub(crate) fn status_after(&self, before: &ConnectionStatus, now_ms: i64) -> ConnectionStatus {
        let Some(failure) = &self.failure else {
            return ConnectionStatus {
                test_status: TestStatus::Active,
                last_tested: Some(now_ms),
                last_used_at: before.last_used_at,
                consecutive_use_count: before.consecutive_use_count,
                ..ConnectionStatus::default()
            };
        };
        ConnectionStatus {
            test_status: if self.is_valid() { TestStatus::Active } else { status_of(failure.kind) },
            last_tested: Some(now_ms),
            last_error: self.message(),
            last_error_at: Some(now_ms),
            last_error_type: Some(failure.kind.as_str().to_owned()),
            last_error_source: Some(if self.status.is_some() { "upstream" } else { "local" }.to_owned()),
            error_code: self.status.map(i64::from),
            ..before.clone()
        }
    }
}

fn status_of(kind: FailureKind) -> TestStatus {
    match kind {
        FailureKind::Banned => TestStatus::Banned,
        FailureKind::QuotaSpent => TestStatus::CreditsExhausted,
        FailureKind::Timeout
        | FailureKind::Connect
        | FailureKind::Unavailable
        | FailureKind::Overloaded
        | FailureKind::AddressBlocked => TestStatus::Unavailable,
        FailureKind::AuthRejected
        | FailureKind::Forbidden
        | FailureKind::RateLimited
        | FailureKind::ModelMissing
        | FailureKind::NotAllowed
        | FailureKind::ContextTooLong
        | FailureKind::Refused
        | FailureKind::BadRequest
        | FailureKind::Empty
        | FailureKind::InvalidResponse
        | FailureKind::Protocol
        | FailureKind::ClientAbort
        | FailureKind::Unknown => TestStatus::Error,
    }
}

fn type_of(kind: FailureKind) -> DiagnosisType {
    match kind {
        FailureKind::AuthRejected | FailureKind::Forbidden | FailureKind::Banned => {
            DiagnosisType::UpstreamAuthError
        }
        FailureKind::RateLimited | FailureKind::QuotaSpent => DiagnosisType::UpstreamRateLimited,
        FailureKind::Overloaded | FailureKind::Unavailable => DiagnosisType::UpstreamUnavailable,
        FailureKind::Timeout => DiagnosisType::Timeout,
        FailureKind::Connect | FailureKind::AddressBlocked => DiagnosisType::NetworkError,
        FailureKind::ModelMissing
        | FailureKind::NotAllowed
        | FailureKind::ContextTooLong
        | FailureKind::Refused
        | FailureKind::BadRequest
        | FailureKind::Empty
        | FailureKind::InvalidResponse
        | FailureKind::Protocol
        | FailureKind::ClientAbort
        | FailureKind::Unknown => DiagnosisType::UpstreamError,
    }
}
