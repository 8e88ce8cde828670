use std::time::Duration;

use http::HeaderValue;
use omniroute_dialect::registry;

use super::*;
use crate::catalog::catalog;

/// 2026-11-23T10:00:00Z.
const NOW: i64 = 1_795_428_000_000;

type Case =
    (&'static str, u16, &'static [(&'static str, &'static str)], &'static str, FailureKind, Option<u64>);

/// Answers as vendors send them: provider, status, headers, body, what it is, hint in milliseconds.
static ANSWERS: &[Case] = &[
    (
        "openai",
        429,
        &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s")],
        r#"{"error":{"message":"Rate limit reached for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
        FailureKind::RateLimited,
        Some(2_000),
    ),
    (
        "openai",
        429,
        &[],
        r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
        FailureKind::QuotaSpent,
        None,
    ),
    (
        "openai",
        401,
        &[],
        r#"{"error":{"message":"Incorrect API key provided: sk-abc***xyz9. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
        FailureKind::AuthRejected,
        None,
    ),
    (
        "openai",
        404,
        &[],
        r#"{"error":{"message":"The model `gpt-9` does not exist or you do not have access to it.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
        FailureKind::ModelMissing,
        None,
    ),
    (
        "openai",
        400,
        &[],
        r#"{"error":{"message":"This model's maximum context length is 128000 tokens. However, your messages resulted in 150001 tokens. Please reduce the length of the messages.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        FailureKind::ContextTooLong,
        None,
    ),
    (
        "openai",
        400,
        &[],
        r#"{"error":{"message":"Unsupported parameter: 'temperature' is not supported with this model.","type":"invalid_request_error","param":"temperature","code":"unsupported_parameter"}}"#,
        FailureKind::BadRequest,
        None,
    ),
    (
        "openai",
        403,
        &[],
        r#"{"error":{"message":"Country, region, or territory not supported","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}"#,
        FailureKind::Forbidden,
        None,
    ),
    (
        "openai",
        503,
        &[],
        r#"{"error":{"message":"The engine is currently overloaded, please try again later","type":"server_error","param":null,"code":null}}"#,
        FailureKind::Overloaded,
        None,
    ),
    (
        "openai",
        500,
        &[],
        r#"{"error":{"message":"The server had an error while processing your request.","type":"server_error","param":null,"code":null}}"#,
        FailureKind::Unavailable,
        None,
    ),
    (
        "openai",
        401,
        &[],
        r#"{"error":{"message":"Your OpenAI account has been deactivated, please check your email for more information.","type":"invalid_request_error","param":null,"code":"account_deactivated"}}"#,
        FailureKind::Banned,
        None,
    ),
    (
        "anthropic",
        429,
        &[("retry-after", "17"), ("anthropic-ratelimit-requests-reset", "2026-11-23T10:01:00Z")],
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization's rate limit of 40,000 input tokens per minute."}}"#,
        FailureKind::RateLimited,
        Some(17_000),
    ),
    (
        "anthropic",
        529,
        &[],
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        FailureKind::Overloaded,
        None,
    ),
    (
        "anthropic",
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."}}"#,
        FailureKind::QuotaSpent,
        None,
    ),
    (
        "anthropic",
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
        FailureKind::ContextTooLong,
        None,
    ),
    (
        "anthropic",
        413,
        &[],
        r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
        FailureKind::ContextTooLong,
        None,
    ),
    (
        "anthropic",
        401,
        &[],
        r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
        FailureKind::AuthRejected,
        None,
    ),
    (
        "anthropic",
        403,
        &[],
        r#"{"type":"error","error":{"type":"permission_error","message":"Your API key does not have permission to use the specified resource."}}"#,
        FailureKind::Forbidden,
        None,
    ),
    (
        "anthropic",
        403,
        &[],
        r#"{"type":"error","error":{"type":"forbidden","message":"Request not allowed"}}"#,
        FailureKind::NotAllowed,
        None,
    ),
    (
        "anthropic",
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#,
        FailureKind::Banned,
        None,
    ),
    (
        "anthropic",
        404,
        &[],
        r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-nine"}}"#,
        FailureKind::ModelMissing,
        None,
    ),
    (
        "anthropic",
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: 300000 > 64000, which is the maximum allowed number of output tokens for claude-x"}}"#,
        FailureKind::BadRequest,
        None,
    ),
    (
        "gemini",
        429,
        &[],
        r#"{"error":{"code":429,"message":"You exceeded your current quota. Please retry in 12.3s.","status":"RESOURCE_EXHAUSTED"}}"#,
        FailureKind::RateLimited,
        Some(12_300),
    ),
    (
        "gemini",
        429,
        &[],
        r#"{"error":{"code":429,"message":"Quota exceeded for quota metric 'Generate requests' and limit 'per day'.","status":"RESOURCE_EXHAUSTED"}}"#,
        FailureKind::QuotaSpent,
        Some(22 * 3_600_000),
    ),
    (
        "gemini",
        400,
        &[],
        r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}"#,
        FailureKind::AuthRejected,
        None,
    ),
    (
        "gemini",
        400,
        &[],
        r#"{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}"#,
        FailureKind::ContextTooLong,
        None,
    ),
    (
        "gemini",
        400,
        &[],
        r#"{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}"#,
        FailureKind::Forbidden,
        None,
    ),
    (
        "gemini",
        404,
        &[],
        r#"{"error":{"code":404,"message":"models/gemini-9 is not found for API version v1beta, or is not supported for generateContent.","status":"NOT_FOUND"}}"#,
        FailureKind::ModelMissing,
        None,
    ),
    (
        "gemini",
        503,
        &[],
        r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#,
        FailureKind::Overloaded,
        None,
    ),
    (
        "gemini",
        403,
        &[],
        r#"{"error":{"code":403,"message":"Permission denied: Consumer 'api_key:x' has been suspended.","status":"PERMISSION_DENIED"}}"#,
        FailureKind::Banned,
        None,
    ),
    (
        "groq",
        429,
        &[("retry-after", "8")],
        r#"{"error":{"message":"Rate limit reached for model `llama` in organization `org_x` on tokens per minute (TPM): Limit 6000. Please try again in 7.66s.","type":"tokens","code":"rate_limit_exceeded"}}"#,
        FailureKind::RateLimited,
        Some(8_000),
    ),
    (
        "groq",
        413,
        &[],
        r#"{"error":{"message":"Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 9000","type":"tokens","code":"rate_limit_exceeded"}}"#,
        FailureKind::ContextTooLong,
        None,
    ),
    (
        "groq",
        400,
        &[],
        r#"{"error":{"message":"The model `old` has been decommissioned and is no longer supported.","type":"invalid_request_error","code":"model_decommissioned"}}"#,
        FailureKind::ModelMissing,
        None,
    ),
    (
        "groq",
        400,
        &[],
        r#"{"error":{"message":"Organization has been restricted. Please reach out to support.","type":"invalid_request_error","code":"organization_restricted"}}"#,
        FailureKind::Banned,
        None,
    ),
    (
        "groq",
        498,
        &[],
        r#"{"error":{"message":"Flex tier capacity exceeded","type":"invalid_request_error","code":"capacity_exceeded"}}"#,
        FailureKind::Overloaded,
        None,
    ),
    ("mistral", 401, &[], r#"{"detail":"Unauthorized"}"#, FailureKind::AuthRejected, None),
    (
        "mistral",
        429,
        &[],
        r#"{"object":"error","message":"Service tier capacity exceeded for this model.","type":"service_tier_capacity_exceeded","param":null,"code":"3505"}"#,
        FailureKind::Overloaded,
        None,
    ),
    ("mistral", 429, &[], r#"{"message":"Requests rate limit exceeded"}"#, FailureKind::RateLimited, None),
    (
        "mistral",
        400,
        &[],
        r#"{"object":"error","message":"Invalid model: mistral-huge","type":"invalid_model","param":null,"code":"1500"}"#,
        FailureKind::ModelMissing,
        None,
    ),
    (
        "mistral",
        422,
        &[],
        r#"{"object":"error","message":"Extra inputs are not permitted","type":"invalid_request_error","code":"3051"}"#,
        FailureKind::BadRequest,
        None,
    ),
    (
        "deepseek",
        402,
        &[],
        r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
        FailureKind::QuotaSpent,
        None,
    ),
    (
        "deepseek",
        401,
        &[],
        r#"{"error":{"message":"Authentication Fails (no such user)","type":"authentication_error","param":null,"code":"invalid_request_error"}}"#,
        FailureKind::AuthRejected,
        None,
    ),
    (
        "openrouter",
        402,
        &[],
        r#"{"error":{"message":"Insufficient credits. Add more using https://openrouter.ai/credits","code":402}}"#,
        FailureKind::QuotaSpent,
        None,
    ),
    (
        "openrouter",
        429,
        &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795428060000")],
        r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day","code":429}}"#,
        FailureKind::QuotaSpent,
        Some(60_000),
    ),
    (
        "openrouter",
        404,
        &[],
        r#"{"error":{"message":"No endpoints found for foo/bar.","code":404}}"#,
        FailureKind::ModelMissing,
        None,
    ),
    (
        "openrouter",
        403,
        &[],
        r#"{"error":{"message":"openai/x requires moderation. Your input was flagged for \"violence\".","code":403}}"#,
        FailureKind::Refused,
        None,
    ),
    (
        "openrouter",
        502,
        &[],
        r#"{"error":{"message":"Provider returned error","code":502}}"#,
        FailureKind::Unavailable,
        None,
    ),
    (
        "openrouter",
        200,
        &[],
        r#"{"error":{"message":"Provider is busy","code":429}}"#,
        FailureKind::RateLimited,
        None,
    ),
    (
        "llamacpp",
        503,
        &[],
        r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
        FailureKind::Overloaded,
        None,
    ),
    (
        "llamacpp",
        400,
        &[],
        r#"{"error":{"code":400,"message":"the request exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error"}}"#,
        FailureKind::ContextTooLong,
        None,
    ),
    (
        "llamacpp",
        401,
        &[],
        r#"{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}"#,
        FailureKind::AuthRejected,
        None,
    ),
    (
        "vllm",
        400,
        &[],
        r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.","type":"BadRequestError","param":null,"code":400}"#,
        FailureKind::ContextTooLong,
        None,
    ),
    (
        "vllm",
        404,
        &[],
        r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#,
        FailureKind::ModelMissing,
        None,
    ),
    ("ollama", 404, &[], r#"{"error":"model 'x' not found"}"#, FailureKind::ModelMissing, None),
    (
        "moonshot",
        429,
        &[],
        r#"{"error":{"message":"The engine is currently overloaded, please try again later","type":"engine_overloaded_error"}}"#,
        FailureKind::Overloaded,
        None,
    ),
    (
        "cloudflare",
        429,
        &[],
        r#"{"errors":[{"message":"you have used up your daily free allocation of 10,000 neurons","code":4006}]}"#,
        FailureKind::QuotaSpent,
        Some(14 * 3_600_000),
    ),
    (
        "azure",
        404,
        &[],
        r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
        FailureKind::ModelMissing,
        None,
    ),
    (
        "azure",
        400,
        &[],
        r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy.","type":null,"param":"prompt","code":"content_filter","status":400}}"#,
        FailureKind::Refused,
        None,
    ),
    (
        "alibaba",
        400,
        &[],
        r#"{"error":{"code":"data_inspection_failed","message":"Input data may contain inappropriate content.","type":"data_inspection_failed"}}"#,
        FailureKind::Refused,
        None,
    ),
    (
        "openai",
        502,
        &[],
        "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>",
        FailureKind::Unavailable,
        None,
    ),
    (
        "openai",
        520,
        &[],
        "<html><body>Web server is returning an unknown error</body></html>",
        FailureKind::Unavailable,
        None,
    ),
    (
        "openai",
        403,
        &[],
        "<!DOCTYPE html><html><title>Attention Required! | Cloudflare</title></html>",
        FailureKind::Unavailable,
        None,
    ),
    ("openai", 429, &[], "<html><body>429 Too Many Requests</body></html>", FailureKind::RateLimited, None),
    // A message that quotes dangerous words must not cool anything down.
    (
        "openai",
        400,
        &[],
        r#"{"error":{"message":"Invalid value for 'tools[0].name': 'check_capacity overloaded rate limit'","type":"invalid_request_error","param":"tools","code":"invalid_value"}}"#,
        FailureKind::BadRequest,
        None,
    ),
    ("openai", 405, &[], "", FailureKind::Unknown, None),
    ("openai", 418, &[], "", FailureKind::Unknown, None),
    // Limits that are not used up are in the headers of every answer, and say nothing of these.
    ("openai", 500, WITH_ROOM, r#"{"error":{"message":"broken"}}"#, FailureKind::Unavailable, None),
    (
        "openai",
        401,
        WITH_ROOM,
        r#"{"error":{"message":"who?","code":"invalid_api_key"}}"#,
        FailureKind::AuthRejected,
        None,
    ),
    (
        "openai",
        402,
        WITH_ROOM,
        r#"{"error":{"message":"Insufficient Balance"}}"#,
        FailureKind::QuotaSpent,
        None,
    ),
    // Who is refused for a limit comes back when the first of them is counted anew.
    ("openai", 429, WITH_ROOM, r#"{"error":{"message":"slow down"}}"#, FailureKind::RateLimited, Some(12)),
];

const WITH_ROOM: &[(&str, &str)] =
    &[("x-ratelimit-remaining-requests", "4999"), ("x-ratelimit-reset-requests", "12ms")];

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
