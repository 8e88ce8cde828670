//! The head of an answer: who served the request, what was lost on the way, what is left of limits and money.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use omniroute_dialect::ir::LossAction;

use crate::ctx::RequestCtx;
use crate::reuse;
use crate::texts::Texts;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const COMBO: HeaderName = HeaderName::from_static("x-omniroute-combo");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-omniroute-attempts");
const SESSION: HeaderName = HeaderName::from_static("x-omniroute-session-id");
pub(crate) const PROVIDER: HeaderName = HeaderName::from_static("x-omniroute-provider");
pub(crate) const MODEL: HeaderName = HeaderName::from_static("x-omniroute-model");
pub(crate) const USAGE: HeaderName = HeaderName::from_static("x-omniroute-usage");
const FIDELITY: HeaderName = HeaderName::from_static("x-omniroute-fidelity");
const DROPPED: HeaderName = HeaderName::from_static("x-omniroute-dropped");
pub(crate) const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Longest list of lost paths in a header.
const MAX_DROPPED: usize = 1024;

/// What every stream's head says.
pub(crate) fn stream_headers(headers: &mut HeaderMap, content_type: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
}

/// Headers that say what happened; `is_good` when somebody answered.
pub(crate) fn diagnostics(ctx: &RequestCtx, is_good: bool, headers: &mut HeaderMap) {
    let mut texts = Texts::new();
    let request_id = texts.text(&ctx.request_id);
    StreamHead { request_id, own_name: ctx.dialect().request_id_header() }.write(headers);
    ctx.write_limits(headers, &mut texts);
    ctx.write_money(is_good, headers, &mut texts);
    let mut insert = |headers: &mut HeaderMap, name, text: &str| {
        drop(texts.text(text).map(|value| headers.insert::<HeaderName>(name, value)));
    };
    if let Some(similarity) = ctx.similarity {
        reuse::tell(ctx.source, similarity, headers);
    }
    if let Some(combo) = &ctx.combo {
        insert(headers, COMBO, combo);
    }
    if let Some(session) = &ctx.session {
        insert(headers, SESSION, session.id());
    }
    if !ctx.attempts.is_empty() {
        headers.insert(ATTEMPTS, small_number(ctx.attempts.len()));
    }
    if !is_good && let Some(last) = ctx.attempts.last() {
        insert(headers, PROVIDER, last.provider.as_str());
        insert(headers, MODEL, &last.model);
    }
    if let Some(target) = ctx.target.as_ref().filter(|_| is_good) {
        insert(headers, PROVIDER, target.provider.id.as_str());
        insert(headers, MODEL, &target.model);
        if !ctx.losses.is_empty() || ctx.upstream_dialect.is_some_and(|dialect| dialect != ctx.dialect().id())
        {
            fidelity(ctx, headers);
        }
    }
}

/// A number that is nearly always a digit, for which nothing is allocated.
fn small_number(number: usize) -> HeaderValue {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    DIGITS.get(number).map_or_else(|| HeaderValue::from(number), |digit| HeaderValue::from_static(digit))
}

fn fidelity(ctx: &RequestCtx, headers: &mut HeaderMap) {
    use std::fmt::Write as _;
    let mut text = String::new();
    for action in [LossAction::Mapped, LossAction::Clamped, LossAction::Dropped, LossAction::Invented] {
        let count = ctx.losses.iter().filter(|loss| loss.action == action).count();
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{}={count}", action.as_str());
    }
    insert(headers, FIDELITY, &text);
    let mut paths = String::new();
    for loss in ctx.losses.iter().filter(|loss| !loss.silent) {
        if paths.len() + loss.path.len() > MAX_DROPPED {
            paths.push_str(",…");
            break;
        }
        if !paths.is_empty() {
            paths.push(',');
        }
        paths.push_str(&loss.path);
    }
    if !paths.is_empty() {
        insert(headers, DROPPED, &paths.replace('…', "..."));
    }
}

pub(crate) fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// The headers that are known before any upstream was called.
pub(crate) struct StreamHead {
    request_id: Option<HeaderValue>,
    own_name: Option<&'static str>,
}

impl StreamHead {
    pub(crate) fn of(ctx: &RequestCtx) -> Self {
        Self {
            request_id: HeaderValue::from_str(&ctx.request_id).ok(),
            own_name: ctx.dialect().request_id_header(),
        }
    }

    pub(crate) fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        self.write(&mut headers);
        headers
    }

    fn write(self, headers: &mut HeaderMap) {
        let Some(value) = self.request_id else { return };
        if let Some(name) = self.own_name {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
        headers.insert(REQUEST_ID, value);
    }
}
