//! Headers that the gateway adds to vendors' formats. Values that are true are `true`, `1` or `yes`.

/// What clients may send on each route with a body.
pub(super) const SENT: &[(&str, &str)] = &[
    ("Idempotency-Key", "Requests that are the same and carry the same key are answered once"),
    ("X-Request-Id", "An id for the request; one is made where it is missing"),
    ("X-Session-Id", "The conversation, which stays with its account; other names clients use are known too"),
    ("X-OmniRoute-No-Cache", "True: the answer neither comes from the cache nor is kept"),
    ("X-OmniRoute-Cache-TTL", "For how many seconds the answer is kept; 0 keeps nothing"),
    ("X-OmniRoute-Progress", "True: a stream also tells how far it has come"),
    ("X-OmniRoute-Strict", "True: what another format cannot carry is refused and not left out"),
    (
        "X-OmniRoute-Thinking",
        "How much is reasoned: off, minimal, low, medium, high, xhigh, max, adaptive, default, or a number of tokens",
    ),
];

/// What good answers carry, each where it applies.
pub(super) const TOLD: &[(&str, &str)] = &[
    ("X-Request-Id", "The id of the request, as in the log"),
    ("X-OmniRoute-Provider", "Who answered"),
    ("X-OmniRoute-Model", "Which of its models"),
    ("X-OmniRoute-Combo", "The combo that was asked for"),
    ("X-OmniRoute-Attempts", "How many accounts were asked"),
    ("X-OmniRoute-Session-Id", "The conversation, where an account is kept for it"),
    ("X-OmniRoute-Cache", "`HIT` or `MISS`"),
    (
        "X-OmniRoute-Cache-Similarity",
        "How close the question is that the answer was made for, where it is another one",
    ),
    (
        "X-OmniRoute-Cache-Shadow",
        "`would-have-served; similarity=…`: the cache has such an answer, and only observes",
    ),
    ("X-OmniRoute-Idempotent", "`true`: this was answered before"),
    ("X-OmniRoute-Progress", "The stream also tells how far it has come"),
    ("X-OmniRoute-Fidelity", "How much another format could not carry as it was, by what became of it"),
    ("X-OmniRoute-Dropped", "Which members were left out"),
    ("X-OmniRoute-Usage", "`estimated`: the vendor did not say how many tokens it were"),
    ("X-OmniRoute-Response-Cost", "What it cost in US dollars, or `unknown`"),
    ("X-OmniRoute-Budget-Warning", "Once per window: the budget that is nearly spent, and how far"),
    ("X-OmniRoute-Budget-Action", "What became of the request because a budget has no room"),
    ("x-ratelimit-limit-requests", "Requests that the key may send in its shortest window"),
    ("x-ratelimit-remaining-requests", "How many are left of them"),
    ("x-ratelimit-reset-requests", "After how long all are there again"),
    ("x-ratelimit-limit-tokens", "The same of tokens"),
    ("x-ratelimit-remaining-tokens", "How many are left of them"),
    ("x-ratelimit-reset-tokens", "After how long all are there again"),
];

/// What errors carry, each where it applies.
pub(super) const FAILED: &[(&str, &str)] = &[
    ("X-Request-Id", "The id of the request, as in the log"),
    ("Retry-After", "After how many seconds it is worth to ask again"),
    ("X-OmniRoute-Attempts", "How many accounts were asked"),
    ("X-OmniRoute-Provider-Breaker", "`open`: the provider has failed too often of late and is not asked"),
    ("X-OmniRoute-Budget-Limit", "Of the budget that refuses: what may be spent, in US dollars"),
    ("X-OmniRoute-Budget-Used", "What is spent of it"),
    ("X-OmniRoute-Budget-Reset", "When it begins anew"),
];
