//! What upstreams say and what it means. Order matters; see the module above.

use std::ops::RangeInclusive;

use crate::{FailureKind, Scope};

/// Stands for the status of an error that names none.
pub(super) const TOLD_NONE: u16 = 0;

/// One row. Empty lists match anything; what is not empty must match all together.
pub(super) struct Row {
    pub(super) statuses: &'static [RangeInclusive<u16>],
    /// Vendor's code or type, whole, in any case.
    pub(super) codes: &'static [&'static str],
    /// Part of the message, in lower case; `*` stands for anything.
    pub(super) texts: &'static [&'static str],
    /// Only if the upstream says how long to wait.
    pub(super) with_hint: bool,
    pub(super) kind: FailureKind,
    /// Where it differs from the kind's usual one.
    pub(super) scope: Option<Scope>,
}

impl Row {
    /// Whether nothing but the status decided.
    pub(super) fn is_status_only(&self) -> bool {
        self.codes.is_empty() && self.texts.is_empty()
    }

    const fn at(mut self, statuses: &'static [RangeInclusive<u16>]) -> Self {
        self.statuses = statuses;
        self
    }

    const fn whole_account(mut self) -> Self {
        self.scope = Some(Scope::Connection);
        self
    }

    const fn with_hint(mut self) -> Self {
        self.with_hint = true;
        self
    }
}

const fn row(kind: FailureKind) -> Row {
    Row { statuses: &[], codes: &[], texts: &[], with_hint: false, kind, scope: None }
}

const fn code(codes: &'static [&'static str], kind: FailureKind) -> Row {
    Row { codes, ..row(kind) }
}

const fn text(texts: &'static [&'static str], kind: FailureKind) -> Row {
    Row { texts, ..row(kind) }
}

const fn status(statuses: &'static [RangeInclusive<u16>], kind: FailureKind) -> Row {
    row(kind).at(statuses)
}

/// Whether a message (in lower case) speaks of a quota that comes back every day.
pub(super) fn is_daily(message: &str) -> bool {
    DAILY.iter().any(|word| message.contains(word))
}

/// Whether an upstream says that money is missing, by a code or in words (in lower case).
pub(super) fn is_credit(names: [Option<&str>; 2], message: &str) -> bool {
    names.iter().flatten().any(|name| CREDIT_CODES.iter().any(|code| name.eq_ignore_ascii_case(code)))
        || CREDIT_TEXTS.iter().any(|text| message.contains(text))
}

const CREDIT_CODES: &[&str] =
    &["insufficient_balance", "insufficient_credits", "insufficient_funds", "credits_exhausted", "Arrearage"];

const CREDIT_TEXTS: &[&str] = &[
    "balance is not enough",
    "balance is too low",
    "credit balance",
    "credits are depleted",
    "credits exhausted",
    "insufficient account balance",
    "insufficient balance",
    "insufficient credit",
    "insufficient funds",
    "not enough credit",
    "out of credit",
    "run out of credits",
    "used all available credits",
];

const DAILY: &[&str] = &["per day", "per-day", "perday", "daily"];

use FailureKind::{
    AuthRejected, BadRequest, Banned, ClientAbort, ContextTooLong, Forbidden, ModelMissing, NotAllowed,
    Overloaded, QuotaSpent, RateLimited, Refused, Unavailable, Unknown,
};

/// First match decides.
pub(super) static TABLE: &[Row] = &[
    // --- codes that mean one thing ---
    code(&["RESOURCE_EXHAUSTED"], RateLimited).with_hint(),
    code(
        &[
            "insufficient_quota",
            "insufficient_balance",
            "insufficient_credits",
            "insufficient_user_quota",
            "insufficient_funds",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "payment_required",
            "payment_required_error",
            "credits_exhausted",
            "exceeded_current_quota_error",
            "usage_limit_reached",
            "Arrearage",
        ],
        QuotaSpent,
    ),
    code(
        &[
            "account_deactivated",
            "account_disabled",
            "account_suspended",
            "account_banned",
            "deactivated_workspace",
            "organization_deactivated",
            "organization_disabled",
            "organization_restricted",
            "user_suspended",
        ],
        Banned,
    ),
    code(
        &[
            "context_length_exceeded",
            "context_window_exceeded",
            "exceed_context_size_error",
            "model_max_prompt_tokens_exceeded",
            "request_too_large",
            "string_above_max_length",
            "tokens_limit_reached",
        ],
        ContextTooLong,
    ),
    // A request that alone is larger than the tokens of a minute.
    code(&["rate_limit_exceeded"], ContextTooLong).at(&[413..=413]),
    code(
        &[
            "content_filter",
            "content_policy",
            "content_policy_violation",
            "data_inspection_failed",
            "DataInspectionFailed",
            "moderation_blocked",
            "prohibited_content",
            "ResponsibleAIPolicyViolation",
            "safety",
            "sensitive_words_detected",
        ],
        Refused,
    ),
    code(
        &[
            "DeploymentNotFound",
            "invalid_model",
            "InvalidEndpointOrModel.NotFound",
            "model_decommissioned",
            "model_not_available",
            "model_not_found",
            "model_not_supported",
            "ModelNotFound",
            "unknown_model",
        ],
        ModelMissing,
    ),
    code(&["unsupported_country_region_territory"], Forbidden).whole_account(),
    code(
        &[
            "api_key_invalid",
            "api_key_expired",
            "expired_api_key",
            "incorrect_api_key_provided",
            "invalid_api_key",
            "invalid_authentication",
            "invalid_authentication_error",
            "invalid_token",
            "token_expired",
            "UNAUTHENTICATED",
        ],
        AuthRejected,
    ),
    code(
        &[
            "capacity_exceeded",
            "engine_overloaded",
            "engine_overloaded_error",
            "model_overloaded",
            "over_capacity",
            "overloaded",
            "overloaded_error",
            "server_overloaded",
            "service_tier_capacity_exceeded",
            "slow_down",
            "unavailable_error",
        ],
        Overloaded,
    ),
    // --- words that sharpen vague codes and statuses ---
    text(&["request not allowed"], NotAllowed),
    text(
        &[
            "account*deactivated",
            "account*disabled",
            "account*suspended",
            "account*been banned",
            "account*been restricted",
            "account*terminated",
            "consumer*has been suspended",
            "organization has been disabled",
            "organization has been restricted",
            "workspace*deactivated",
        ],
        Banned,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=403]),
    text(
        &[
            "account*arrears",
            "account balance",
            "balance is not enough",
            "balance is too low",
            "billing hard limit",
            "check your plan and billing",
            "credit balance",
            "credits are depleted",
            "credits exhausted",
            "exceeded your current quota",
            "insufficient account balance",
            "insufficient balance",
            "insufficient credit",
            "insufficient funds",
            "insufficient_quota",
            "not enough credit",
            "out of credit",
            "payment required",
            "quota has been exhausted",
            "run out of credits",
            "used all available credits",
        ],
        QuotaSpent,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=403, 429..=429]),
    text(
        &[
            "context length",
            "context limit",
            "context size",
            "context window",
            "context_length",
            "exceeds the maximum number of tokens",
            "input is too long",
            "input token count*exceeds",
            "input*longer than the model",
            "prompt is too long",
            "prompt*too many tokens",
            "reduce the length of",
            "too many input tokens",
            "total tokens*exceed",
        ],
        ContextTooLong,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=400, 413..=413, 422..=422, 500..=500]),
    text(
        &[
            "blocked by*safety",
            "content filter",
            "content management policy",
            "content policy",
            "content_filter",
            "content_policy",
            "data inspection",
            "flagged",
            "inappropriate content",
            "prohibited content",
            "responsible ai",
            "safety system",
            "usage policies",
            "usage policy",
        ],
        Refused,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=400, 403..=403, 422..=422]),
    text(
        &[
            "user location is not supported",
            "country, region",
            "not available in your",
            "unsupported location",
        ],
        Forbidden,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=403])
    .whole_account(),
    text(
        &[
            "api key expired",
            "api key is invalid",
            "api key not found",
            "api key not valid",
            "api_key_invalid",
            "authentication fails",
            "expired api key",
            "incorrect api key",
            "invalid api key",
            "invalid authentication",
            "invalid bearer",
            "invalid token",
            "invalid x-api-key",
            "missing api key",
            "no api key",
            "no auth credentials",
            "token has expired",
            "token is expired",
        ],
        AuthRejected,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=401, 403..=403]),
    text(
        &[
            "deployment*does not exist",
            "invalid model",
            "model*decommissioned",
            "model*does not exist",
            "model*is not available",
            "model*no longer available",
            "model*not exist",
            "model*not found",
            "no endpoints found",
            "no such model",
            "not a valid model",
            "not have access to model",
            "not have access to the model",
            "not supported for generatecontent",
            "unknown model",
        ],
        ModelMissing,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=400, 403..=404]),
    // A firewall's page says nothing about the account.
    text(&["returned html"], Unavailable).at(&[403..=403]),
    // --- vague codes ---
    code(&["authentication_error", "AuthenticationError"], AuthRejected),
    code(&["UNAVAILABLE"], Overloaded),
    text(DAILY, QuotaSpent).at(&[429..=429]),
    text(&["at capacity", "capacity exceeded", "over capacity", "overloaded", "server is busy"], Overloaded)
        .at(&[429..=429]),
    code(
        &[
            "LimitRequests",
            "rate_limit",
            "rate_limit_error",
            "rate_limit_exceeded",
            "rate_limit_reached_error",
            "rate_limited",
            "RateLimitReached",
            "Throttling",
            "Throttling.RateQuota",
            "ThrottlingException",
            "too_many_requests",
        ],
        RateLimited,
    ),
    code(
        &[
            "access_denied",
            "AccessDenied",
            "forbidden",
            "insufficient_permissions",
            "permission_denied",
            "permission_error",
        ],
        Forbidden,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 400..=403]),
    code(&["not_found_error", "NOT_FOUND", "NotFoundError"], ModelMissing)
        .at(&[TOLD_NONE..=TOLD_NONE, 404..=404]),
    // --- words ---
    text(
        &[
            "at capacity",
            "capacity exceeded",
            "high demand",
            "loading model",
            "model is loading",
            "no available",
            "no healthy",
            "over capacity",
            "overloaded",
            "server is busy",
            "temporarily unavailable",
        ],
        Overloaded,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 500..=503, 529..=529]),
    text(
        &[
            "rate limit",
            "rate-limit",
            "ratelimit",
            "requests per minute",
            "throttl",
            "tokens per minute",
            "too many requests",
        ],
        RateLimited,
    )
    .at(&[TOLD_NONE..=TOLD_NONE, 403..=403, 503..=503]),
    // --- an error within a successful answer, without any status ---
    code(
        &[
            "api_error",
            "INTERNAL",
            "internal_error",
            "internal_server_error",
            "server_error",
            "timeout_error",
        ],
        Unavailable,
    )
    .at(&[TOLD_NONE..=TOLD_NONE]),
    code(&["bad_request", "INVALID_ARGUMENT", "invalid_request_error"], BadRequest)
        .at(&[TOLD_NONE..=TOLD_NONE]),
    status(&[TOLD_NONE..=TOLD_NONE], Unavailable),
    // --- statuses ---
    status(&[401..=401], AuthRejected),
    status(&[402..=402], QuotaSpent),
    status(&[403..=403], Forbidden),
    status(&[404..=404, 410..=410], ModelMissing),
    status(&[413..=414], ContextTooLong),
    status(&[429..=429], RateLimited),
    status(&[499..=499], ClientAbort),
    status(&[503..=503, 529..=529, 498..=498], Overloaded),
    status(&[400..=400, 409..=409, 411..=412, 415..=417, 422..=422, 431..=431], BadRequest),
    status(&[408..=408, 425..=425, 500..=500, 502..=502, 504..=528, 530..=599], Unavailable),
    status(&[], Unknown),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_in_lower_case_and_no_code_stands_twice_for_the_same_statuses() {
        let mut seen = std::collections::BTreeMap::new();
        for row in TABLE {
            for text in row.texts {
                assert_eq!(*text, text.to_lowercase());
            }
            for code in row.codes {
                let key = (code.to_ascii_lowercase(), format!("{:?}", row.statuses));
                assert_eq!(seen.insert(key, row.kind), None, "{code}");
            }
        }
    }
}
