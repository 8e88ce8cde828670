mod answers;

use std::time::Duration;

use http::HeaderValue;
use omniroute_dialect::registry;

use super::*;
use crate::catalog::catalog;
use answers::ANSWERS;

/// 2026-11-23T10:00:00Z.
const NOW: i64 = 1_795_428_000_000;

#[test]
fn answers_are_judged() {
    for (provider, status, headers, body, want, hint) in ANSWERS {
        let spec = catalog().provider(provider).unwrap();
        let status = StatusCode::from_u16(*status).unwrap();
        // Vendors whose own dialect is not spoken write their errors like everybody else.
        let dialect = registry::by_name(&spec.dialect).or_else(|| registry::by_name("openai-chat")).unwrap();
        let error = dialect.decode_error(status, body.as_bytes());
        let mut map = HeaderMap::new();
        for (name, value) in *headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let failure = classify(spec, error, status, &map, NOW);
        assert_eq!(failure.kind, *want, "{provider} {status}: {body}\n{:?}", failure.upstream);
        assert_eq!(failure.retry_after, hint.map(Duration::from_millis), "{provider} {status}: {body}");
        assert!(!failure.upstream.message.contains("sk-abc"), "{}", failure.upstream.message);
    }
}

#[test]
fn scope_and_retry_follow_the_kind() {
    use FailureKind as Kind;
    let cases = [
        (
            Failure::timeout("no first byte within 600 s"),
            Kind::Timeout,
            Scope::ConnectionModel,
            Retry::Elsewhere,
            504,
        ),
        (
            Failure::connect("connection refused"),
            Kind::Connect,
            Scope::ConnectionModel,
            Retry::Elsewhere,
            502,
        ),
        (Failure::empty(), Kind::Empty, Scope::ConnectionModel, Retry::Elsewhere, 502),
        (Failure::protocol("not JSON"), Kind::Protocol, Scope::ConnectionModel, Retry::Elsewhere, 502),
        (Failure::client_abort(), Kind::ClientAbort, Scope::Request, Retry::Never, 499),
    ];
    for (failure, kind, scope, retry, status) in cases {
        assert_eq!((failure.kind, failure.scope, failure.retry), (kind, scope, retry));
        assert_eq!(failure.upstream.status, Some(status));
        assert_eq!(failure.upstream.code.as_deref(), Some(kind.as_str()));
    }
    let blocked = crate::address::verdict("127.0.0.1".parse().unwrap(), false).unwrap_err();
    let failure = Failure::address_blocked(&blocked);
    assert!(failure.upstream.message.contains("allowPrivate"), "{}", failure.upstream.message);
    let blocked = crate::address::verdict("169.254.169.254".parse().unwrap(), true).unwrap_err();
    assert!(Failure::address_blocked(&blocked).upstream.message.contains("never"));
}

#[test]
fn errors_within_a_success_go_by_what_they_name() {
    let spec = catalog().provider("anthropic").unwrap();
    let judge = |error| classify(spec, error, StatusCode::OK, &HeaderMap::new(), NOW);
    let error = |kind: &str, message: &str| UpstreamError {
        kind: Some(kind.to_owned()),
        message: message.to_owned(),
        ..UpstreamError::default()
    };
    let cases = [
        (error("overloaded_error", "Overloaded"), FailureKind::Overloaded),
        (error("api_error", "Internal server error"), FailureKind::Unavailable),
        (error("invalid_request_error", "messages: bad"), FailureKind::BadRequest),
        (error("invalid_request_error", "prompt is too long"), FailureKind::ContextTooLong),
        (error("rate_limit_error", "slow down"), FailureKind::RateLimited),
        (UpstreamError { message: "?".to_owned(), ..UpstreamError::default() }, FailureKind::Unavailable),
        (UpstreamError { status: Some(402), ..UpstreamError::default() }, FailureKind::QuotaSpent),
    ];
    for (error, want) in cases {
        let failure = judge(error.clone());
        assert_eq!(failure.kind, want, "{error:?}");
        assert_eq!(failure.upstream.status, error.status.or(Some(502)));
    }
    let failure = judge(error("invalid_request_error", "prompt is too long"));
    assert_eq!(failure.upstream.code.as_deref(), Some("context_length_exceeded"));
}

#[test]
fn a_spent_generic_window_concerns_the_account() {
    let mut headers = HeaderMap::new();
    headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
    let scope = |provider: &str| {
        let spec = catalog().provider(provider).unwrap();
        classify(spec, UpstreamError::default(), StatusCode::TOO_MANY_REQUESTS, &headers, NOW).scope
    };
    assert_eq!(scope("openrouter"), Scope::Connection);
    assert_eq!(scope("openai"), Scope::ConnectionModel);
}
