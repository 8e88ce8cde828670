//! Refusals that the gateway can do something about by itself: a parameter that this model does not take, reasoning
//! that this account cannot read. Each is tried once more with the cause removed.

use http::StatusCode;
use omniroute_dialect::ir::UpstreamError;
use omniroute_domain::learned;
use omniroute_domain::resolve::Target;

use crate::ctx::RequestCtx;

/// Most repairs of one request.
const MAX_REPAIRS: u8 = 3;

/// Whether the refusal was understood and the cause of it is gone, so that the same account should be asked again.
pub(crate) fn repair(
    ctx: &mut RequestCtx,
    target: &Target,
    status: StatusCode,
    error: &UpstreamError,
) -> bool {
    if !matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
        || ctx.repairs >= MAX_REPAIRS
    {
        return false;
    }
    let repaired = if !ctx.without_reasoning && is_about_reasoning(error) {
        ctx.without_reasoning = true;
        true
    } else if let Some(fact) = learned::fact_of(error).filter(|_| !ctx.is_strict()) {
        let now_ms = ctx.engine.clock.now_ms();
        let description = fact.describe();
        let is_new = ctx.engine.live.learned.learn(&target.provider.id, &target.model, fact, now_ms);
        if is_new {
            tracing::info!(provider = %target.provider.id, model = %target.model, "learned: {description}");
        }
        is_new
    } else {
        false
    };
    ctx.repairs += u8::from(repaired);
    repaired
}

/// Whether a refusal is about signatures or encrypted reasoning of the history.
fn is_about_reasoning(error: &UpstreamError) -> bool {
    const CODES: &[&str] = &["invalid_encrypted_content"];
    const WORDS: &[&str] = &[
        "invalid `signature`",
        "invalid signature",
        "thought_signature",
        "thought signature",
        "thoughtsignature",
        "encrypted content",
        "encrypted_content",
        "redacted_thinking",
        "expected `thinking`",
        "thinking block",
        "thinking blocks",
    ];
    let text = error.message.to_ascii_lowercase();
    error.code.as_deref().is_some_and(|code| CODES.contains(&code))
        || WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_about_reasoning() {
        for (message, expected) in [
            ("messages.1.content.0: Invalid `signature` in `thinking` block", true),
            ("Function call is missing a thought_signature in functionCall parts", true),
            ("The encrypted content gAAA could not be verified", true),
            ("Expected `thinking` or `redacted_thinking`, but found `tool_use`", true),
            ("temperature is deprecated", false),
            ("prompt is too long", false),
        ] {
            let error = UpstreamError { message: message.to_owned(), ..UpstreamError::default() };
            assert_eq!(is_about_reasoning(&error), expected, "{message}");
        }
    }
}
