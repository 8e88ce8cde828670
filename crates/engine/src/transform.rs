//! What the operator changes in a request on its way to one target: thinking, system text, tools, the limit of the answer.
//! Here it is decided what; the dialects make the changes.

use std::sync::Arc;

use http::HeaderName;
use omniroute_dialect::ir::{BlockKind, ChatRequest, ErrorKind, Loss, LossAction, ReasoningAmount, Role};
use omniroute_dialect::rewrite::{ReasoningEdit, Rewrite, SystemEdit, ToolTest};
use omniroute_dialect::{Caps, Dialect};
use omniroute_domain::combo::ComboState;
use omniroute_domain::entity::{ThinkingMode, ThinkingSettings};
use omniroute_domain::resolve::Target;
use omniroute_domain::thinking::{self, ConversationShape, Decision, Situation};
use omniroute_domain::transform::{Template, Values};
use regex_lite::Regex;
use smallvec::SmallVec;

use crate::attempt::Trying;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::handoff::Taken;

/// What a client says of thinking beside its body.
const THINKING: HeaderName = HeaderName::from_static("x-omniroute-thinking");
/// Context from which on a model needs no longer variant.
const LONG_CONTEXT: u64 = 1_000_000;

/// The changes for a target; `None` when there are none, as for most requests.
///
/// `stays` is whether the request stays in its dialect; else what a model cannot do is left out by the encoder.
pub(crate) fn of(
    ctx: &mut RequestCtx,
    target: &Target,
    caps: &Caps,
    stays: bool,
) -> Result<Option<Rewrite>, GatewayError> {
    if ctx.is_aside() {
        // What the operator adds is for clients; limits are for all.
        let rewrite = Rewrite { max_output_tokens: most_output(ctx), ..Rewrite::default() };
        return Ok(Some(rewrite).filter(|rewrite| !rewrite.is_empty()));
    }
    let reasoning = if caps.reasoning || stays { reasoning(ctx, target, caps)? } else { None };
    let rewrite = Rewrite {
        reasoning,
        system: system(ctx),
        max_output_tokens: most_output(ctx),
        keeps_tool: tools(ctx),
    };
    Ok(Some(rewrite).filter(|rewrite| !rewrite.is_empty()))
}

/// The policies' limit of the answer.
fn most_output(ctx: &RequestCtx) -> Option<u64> {
    ctx.steering.as_ref().and_then(|steering| steering.verdict.max_tokens)
}

/// Whether a header says something that nobody understands; found out before anybody is asked.
pub(crate) fn check(ctx: &RequestCtx) -> Result<(), GatewayError> {
    header(ctx).map(drop)
}

/// Asks for the variant with the longest context where the name of the model says so and the model has a shorter one.
pub(crate) fn ask_for_long_context(
    ctx: &RequestCtx,
    target: &Target,
    caps: &Caps,
    dialect: &'static dyn Dialect,
    headers: &mut http::HeaderMap,
) {
    let by_route = ctx.steering.as_ref().is_some_and(|steering| steering.suffixes.extended_context);
    let by_combo = ctx.trying.iter().flat_map(Trying::suffixes).any(|suffixes| suffixes.extended_context);
    let is_asked = by_route || by_combo || target.suffixes.extended_context;
    if is_asked && caps.context_window.is_none_or(|window| window < LONG_CONTEXT) {
        dialect.ask_for_long_context(headers);
    }
}

fn header(ctx: &RequestCtx) -> Result<Option<ReasoningAmount>, GatewayError> {
    let Some(value) = ctx.arrival.headers.get(THINKING) else { return Ok(None) };
    let amount = value.to_str().ok().and_then(ReasoningAmount::of_word);
    amount.map(Some).ok_or_else(|| {
        let message = "`X-OmniRoute-Thinking` must be `off`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, \
                       `adaptive`, `default` or a number of tokens";
        GatewayError::new(ErrorKind::InvalidRequest, "invalid_value", message).param("X-OmniRoute-Thinking")
    })
}

/// Whether the conversation has to be understood for it.
pub(crate) fn needs_content(ctx: &RequestCtx, caps: &Caps) -> bool {
    caps.reasoning && settings(ctx).mode == ThinkingMode::Adaptive
}

/// The settings that count: the key's, the combo's, or the general ones.
fn settings(ctx: &RequestCtx) -> ThinkingSettings {
    let own = ctx.caller.as_ref().and_then(|caller| caller.thinking);
    own.or_else(|| ctx.combos().find_map(|combo| combo.rules.thinking))
        .unwrap_or(ctx.snapshot.settings.thinking_budget)
}

fn reasoning(
    ctx: &mut RequestCtx,
    target: &Target,
    caps: &Caps,
) -> Result<Option<ReasoningEdit>, GatewayError> {
    let settings = settings(ctx);
    let shape = ctx.canonical.as_deref().map(shape).unwrap_or_default();
    let header = header(ctx)?;
    // What the client and the names that it asked for say counts before an entry of a combo, and that before those within.
    let by_route = ctx.steering.as_ref().and_then(|steering| steering.suffixes.effort.as_ref());
    let by_combo = || ctx.trying.iter().flat_map(Trying::suffixes).find_map(|said| said.effort.as_ref());
    let suffix = by_route.or_else(by_combo).or(target.suffixes.effort.as_ref()).cloned();
    let is_asked = ctx.envelope()?.spans.asks_to_reason;
    let decision = thinking::decide(&Situation {
        settings,
        header: header.as_ref(),
        suffix: suffix.as_ref(),
        is_asked,
        can_reason: caps.reasoning,
        max_output: caps.max_output_tokens,
        model: &target.model,
        shape,
    });
    Ok(match decision {
        Decision::Keep => None,
        Decision::Strip => {
            if !caps.reasoning {
                note_dropped(ctx);
            }
            Some(ReasoningEdit::Strip)
        }
        Decision::Set(amount) => Some(ReasoningEdit::Set(amount)),
    })
}

/// A model that cannot reason does not get what the client said of it.
fn note_dropped(ctx: &mut RequestCtx) {
    let loss = Loss { path: "reasoning".into(), action: LossAction::Dropped, silent: false };
    if !ctx.losses.contains(&loss) {
        ctx.note_losses([loss]);
    }
}

fn shape(request: &ChatRequest) -> ConversationShape {
    let last = request.turns.iter().rev().find(|turn| turn.role == Role::User);
    let chars = |turn: &omniroute_dialect::ir::Turn| -> usize {
        let texts = turn.blocks.iter().filter_map(|block| match &block.kind {
            BlockKind::Text(text) => Some(text.chars().count()),
            _ => None,
        });
        texts.sum()
    };
    ConversationShape {
        messages: request.turns.len(),
        tools: request.tools.len(),
        last_user_chars: last.map_or(0, chars),
    }
}

/// Everything that changes what is asked, as far as it is known before a target is: the operator's texts, how much is to
/// be thought, what a policy and the asked name say beside the model.
pub(crate) fn digest_of_changes(ctx: &RequestCtx) -> String {
    let SystemEdit { replace, before, after } = system(ctx);
    let header = ctx.arrival.headers.get(THINKING);
    let steering = ctx.steering.as_ref();
    let suffixes = steering.map(|steering| &steering.suffixes);
    let limit = steering.and_then(|steering| steering.verdict.max_tokens);
    format!("{replace:?} {before:?} {after:?} {:?} {header:?} {suffixes:?} {limit:?}", settings(ctx))
}

/// The combo's text in the place of the client's, the operator's around both.
fn system(ctx: &RequestCtx) -> SystemEdit {
    let replace = ctx.combos().find_map(|combo| combo.rules.system.as_ref());
    let around = ctx.snapshot.system_text.as_ref();
    let told = ctx.told().map(Taken::text);
    if replace.is_none() && around.is_none() {
        return SystemEdit { before: told, ..SystemEdit::default() };
    }
    let values = Values {
        now_ms: ctx.started_ms,
        model: ctx.requested(),
        key_name: ctx.caller.as_ref().map_or("", |caller| &caller.name),
    };
    let render = |template: &Template| template.render(&values);
    SystemEdit {
        replace: replace.map(render),
        before: joined(around.and_then(|text| text.before.as_ref()).map(render), told),
        after: around.and_then(|text| text.after.as_ref()).map(render),
    }
}

fn joined(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}\n\n{second}")),
        (first, second) => first.or(second),
    }
}

/// A tool has to pass the filters of all combos that lead to the target.
fn tools(ctx: &RequestCtx) -> Option<ToolTest> {
    let filters: SmallVec<[Regex; 1]> = ctx.combos().filter_map(|combo| combo.rules.tools.clone()).collect();
    if filters.is_empty() {
        return None;
    }
    Some(Arc::new(move |name: &str| filters.iter().all(|filter| filter.is_match(name))))
}

impl RequestCtx {
    /// The combos that lead to the target that is asked, the innermost first.
    pub(crate) fn combos(&self) -> impl Iterator<Item = &ComboState> {
        self.trying.iter().flat_map(|trying| trying.combos())
    }

    /// The model as the client asked for it.
    pub(crate) fn requested(&self) -> &str {
        self.envelope.as_ref().map_or("", |envelope| &envelope.model)
    }
}
