//! A conversation that changes its account takes a summary with it, in combos whose strategy relays.
//!
//! While its account is nearly used up, an answer is followed by one more call that nobody waits for: it sums the conversation
//! up. When another account is asked for the next turn and the request does not bring what was summed up, it is told it as a
//! part of the system text, and when it has answered the summary is gone. What was said to one is never told to another: a
//! conversation has summaries only where a header names it and its caller has a key.

mod summary;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use omniroute_dialect::Caps;
use omniroute_dialect::ir::ErrorKind;
use omniroute_domain::combo::{ComboState, HandoffRules};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::handoff::{self, Brief, Handoff, HandoffKey, KEPT_MS};
use omniroute_domain::resolve::{self, Target};
use omniroute_domain::snapshot::ConnectionState;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admit;
use crate::attempt::{self, Rewrite};
use crate::ctx::{Arrival, RequestCtx, is_request_id};
use crate::error::GatewayError;
use crate::ports::{HandoffRow, Memory};
use crate::serve::Engine;
use crate::session;

/// What the ids of their rows end with; the rest is that of the request they follow.
const SUFFIX: &str = "-handoff";
/// How long such a call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The summary that there is when another account is asked than the one whose answers were summed up.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    key: HandoffKey,
    handoff: Arc<Handoff>,
    /// Whether the account is told it, and not sent all of the conversation anyway.
    is_told: bool,
}

impl Taken {
    /// As it stands in the system text.
    pub(crate) fn text(&self) -> String {
        self.handoff.brief.told()
    }

    /// Whose answers were summed up.
    pub(crate) fn from(&self) -> &str {
        self.handoff.from.as_str()
    }
}

/// Calls that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Asides(Mutex<JoinSet<()>>);

impl Engine {
    /// Ends calls that no client waits for; what they used so far is recorded.
    pub async fn end_asides(&self) {
        let mut asides = std::mem::take(&mut *self.asides.0.lock().unwrap_or_else(PoisonError::into_inner));
        asides.shutdown().await;
    }
}

/// Takes over what an earlier process kept.
pub(crate) fn restore(engine: &Engine, row: HandoffRow) {
    engine.live.handoffs.restore(row.key, row.handoff, engine.clock.now_ms());
}

/// Before an account is asked: what it has to be told of the conversation, if anything.
pub(crate) async fn take_over(
    ctx: &mut RequestCtx,
    connection: &ConnectionState,
    caps: &Caps,
) -> Result<(), GatewayError> {
    let Some(combo) = relaying(ctx) else { return Ok(()) };
    let Some((session, _)) = session::in_header(ctx) else { return Ok(()) };
    let is_always = combo.policy.handoff.is_always;
    let key = HandoffKey { session: session.clone(), combo: combo.name.clone() };
    let found = ctx.engine.live.handoffs.find(&key, ctx.engine.clock.now_ms());
    let Some(handoff) = found.filter(|handoff| handoff.from != connection.id) else { return Ok(()) };
    let max_output = ctx.envelope()?.max_output_tokens.unwrap_or(0);
    let needed = ctx.estimated_input_tokens().saturating_add(max_output);
    let fits = caps.context_window.is_none_or(|window| needed <= window);
    let history = summary::history(ctx.canonical().await?);
    let is_told = is_always || !fits || !handoff.is_within(history);
    ctx.taken = Some(Box::new(Taken { key, handoff, is_told }));
    Ok(())
}

/// An account answered: the summary of another's answers is gone, and if it is nearly used up itself, one is made.
pub(crate) fn answered(ctx: &RequestCtx, target: &Arc<Target>, connection: &ConnectionState) {
    let handoffs = &ctx.engine.live.handoffs;
    if let Some(Taken { key, handoff, is_told }) = ctx.taken.as_deref() {
        // Kept longer, it would be told when much more has been said than it knows.
        let is_gone = if *is_told { handoffs.told(key, handoff) } else { handoffs.outdated(key, handoff) };
        if is_gone {
            ctx.engine.recorder.remember(Memory::HandoffGone(key.clone()));
        }
    }
    let Some(combo) = relaying(ctx) else { return };
    let Some((session, ttl_ms)) = session::in_header(ctx) else { return };
    let (rules, now_ms) = (&combo.policy.handoff, ctx.engine.clock.now_ms());
    // Of an account with several keys the one counts that has most left.
    let account = ctx.snapshot.connection(&connection.id).map_or(connection, |account| account);
    let left = account.rest(&target.model, now_ms);
    let is_due = left.is_some_and(|left| handoff::is_due(left, rules.threshold.get()));
    if !is_due || !concerns(ctx, rules, target) {
        return;
    }
    if ctx.is_warned() {
        return handoffs.skipped();
    }
    let key = HandoffKey { session: session.clone(), combo: combo.name.clone() };
    if !handoffs.begin(&key, &connection.id, now_ms) {
        return;
    }
    let expires_at = now_ms.saturating_add(ttl_ms.min(KEPT_MS));
    Making::begin(ctx, combo, key, target, connection, expires_at).spawn();
}

/// Whether the target is asked for a combo that hands conversations over.
pub(crate) fn relays(ctx: &RequestCtx) -> bool {
    relaying(ctx).is_some()
}

/// The combo that the target is asked for and that hands conversations over, if there is one and the request is the client's.
fn relaying(ctx: &RequestCtx) -> Option<&ComboState> {
    if ctx.trying.is_none() || ctx.rewrite.is_some() || ctx.task.is_some() {
        return None;
    }
    ctx.combos().find(|combo| combo.strategy.relays())
}

/// Whether conversations at this provider are handed over.
fn concerns(ctx: &RequestCtx, rules: &HandoffRules, target: &Target) -> bool {
    let is_it = |name: &String| {
        let id = &target.provider.id;
        *name == *id.as_str() || ctx.snapshot.by_prefix(name).is_some_and(|known| known == id)
    };
    rules.providers.is_empty() || rules.providers.iter().any(is_it)
}

/// A summary that is being made. Dropped before it is done, it has failed.
struct Making {
    ctx: Option<Box<RequestCtx>>,
    engine: Arc<Engine>,
    key: HandoffKey,
    from: ConnectionId,
    target: Arc<Target>,
    rules: HandoffRules,
    /// When the conversation is over if it stays silent; the summary ends with it.
    expires_at: i64,
    is_done: bool,
}

impl Making {
    fn begin(
        ctx: &RequestCtx,
        combo: &ComboState,
        key: HandoffKey,
        target: &Arc<Target>,
        connection: &ConnectionState,
        expires_at: i64,
    ) -> Self {
        Self {
            target: summariser(ctx, combo, target),
            ctx: Some(ctx.aside()),
            engine: ctx.engine.clone(),
            key,
            from: connection.id.clone(),
            rules: combo.policy.handoff.clone(),
            expires_at,
            is_done: false,
        }
    }

    /// Nobody waits for it: the client has its answer.
    fn spawn(self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let engine = self.engine.clone();
        let mut asides = engine.asides.0.lock().unwrap_or_else(PoisonError::into_inner);
        while asides.try_join_next().is_some() {}
        asides.spawn_on(self.make(), &runtime);
    }

    async fn make(mut self) {
        let Some(mut ctx) = self.ctx.take() else { return };
        let made = match timeout(PATIENCE, self.ask(&mut ctx)).await {
            Ok(made) => made,
            Err(_) => Err(nothing("the summary of a conversation was not made in time")),
        };
        match made {
            Ok(handoff) => {
                ctx.outcome.status = Some(200);
                self.keep(&ctx, handoff);
            }
            Err(error) => {
                // Not the message: an upstream may quote what was said.
                let (kind, code) = (error.kind, error.code.as_deref().unwrap_or_default());
                tracing::info!(request_id = %ctx.request_id, combo = %self.key.combo, ?kind, code, "a conversation was not summed up");
                ctx.note_error(&error);
            }
        }
    }

    async fn ask(&self, ctx: &mut RequestCtx) -> Result<Handoff, GatewayError> {
        let conversation = ctx.canonical().await?;
        let history = summary::history(conversation);
        let request = summary::request(conversation, self.rules.turns)
            .ok_or_else(|| nothing("the conversation says nothing that could be summed up"))?;
        // What is estimated is what is sent, not what the client did.
        ctx.set_body(Bytes::new());
        ctx.losses.clear();
        ctx.arrival.headers.clear();
        let envelope = ctx.envelope.as_mut();
        if let Some(envelope) = envelope {
            envelope.model = self.target.full_name().into();
            envelope.stream = false;
            envelope.kept = None;
            envelope.session_key = None;
            envelope.max_output_tokens = request.max_output_tokens;
        }
        let length = summary::length(&request);
        ctx.sum_up(Box::new(request), length);
        let answer = attempt::aside(ctx, &self.target).await?;
        let brief = Brief::of_answer(&attempt::text_of(&answer))
            .ok_or_else(|| nothing("the model said nothing that is a summary"))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, in hundredths")]
        let threshold_percent = (self.rules.threshold.get() * 100.0).round() as u32;
        Ok(Handoff {
            from: self.from.clone(),
            brief,
            turns: history.turns,
            opening: history.opening,
            model: self.target.full_name(),
            threshold_percent,
            made_at: self.engine.clock.now_ms(),
            expires_at: self.expires_at,
        })
    }

    fn keep(&mut self, ctx: &RequestCtx, handoff: Handoff) {
        self.is_done = true;
        // Of callers whose contents are not to be stored it stays in memory.
        if !ctx.caller.as_ref().is_some_and(|caller| caller.no_log) {
            let row = HandoffRow { key: self.key.clone(), handoff: handoff.clone() };
            self.engine.recorder.remember(Memory::Handoff(Box::new(row)));
        }
        if !self.engine.live.handoffs.made(&self.key, handoff, self.engine.clock.now_ms()) {
            self.engine.recorder.remember(Memory::HandoffGone(self.key.clone()));
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.is_done {
            self.engine.live.handoffs.failed(&self.key, self.engine.clock.now_ms());
        }
    }
}

/// Who sums up: the combo's model for it, where there is one that the key may use, else who answered.
fn summariser(ctx: &RequestCtx, combo: &ComboState, target: &Arc<Target>) -> Arc<Target> {
    let Some(name) = &combo.policy.handoff.model else { return target.clone() };
    match resolve::model(&ctx.snapshot, name).map(Arc::new) {
        Ok(found) if admit::may_use_in(ctx, combo, &found) => found,
        Ok(_) => target.clone(),
        Err(error) => {
            tracing::warn!(combo = %combo.name, "handoffModel `{name}` is not asked: {error}");
            target.clone()
        }
    }
}

fn nothing(message: &str) -> GatewayError {
    GatewayError::new(ErrorKind::BadGateway, "no_summary", message)
}

impl RequestCtx {
    /// A request of the gateway's own that follows this one, for the same caller. The limits of the key are not charged: its
    /// owner did not ask for it. It is paid for and logged like any other.
    fn aside(&self) -> Box<Self> {
        let mut ctx = Self::new(self.engine.clone(), Arrival { is_logged: true, ..self.arrival.clone() });
        let id = format!("{}{SUFFIX}", self.request_id);
        ctx.request_id = if is_request_id(&id) { id.into() } else { self.engine.new_request_id() };
        ctx.snapshot = self.snapshot.clone();
        ctx.caller.clone_from(&self.caller);
        ctx.set_body(self.body.clone());
        ctx.envelope.clone_from(&self.envelope);
        ctx
    }

    /// What the account that is asked is told of the conversation, if anything.
    pub(crate) fn told(&self) -> Option<&Taken> {
        self.taken.as_deref().filter(|taken| taken.is_told)
    }

    /// Whether it is a request of the gateway's own.
    pub(crate) fn is_aside(&self) -> bool {
        self.rewrite == Some(Rewrite::Aside)
    }
}
