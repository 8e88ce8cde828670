//! A fusion: several targets answer the same request, whole and at once; a judge reads their answers and writes the reply.

use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use omniroute_dialect::DialectId;
use omniroute_dialect::ir::{ChatRequest, ChatResponse};
use omniroute_domain::combo;
use omniroute_domain::resolve::Target;

use super::accounts::{self, Failed, Patience};
use super::ask::{ask, sit_out};
use super::targets::Course;
use super::{Attempted, inner};
use crate::admit;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::preview;

/// What the judge is told before the answers.
const TASK: &str = "Several models have each replied to the conversation above. Their replies follow, numbered. Write the one \
     best reply to the last message: take what is right in them, mend what is wrong, and leave out that there were others.";

/// An answer for the judge.
struct Material {
    place: usize,
    target: Arc<Target>,
    step: Option<Arc<str>>,
    upstream_dialect: Option<DialectId>,
    answer: Box<ChatResponse>,
    /// Its row among the attempts.
    row: usize,
}

type Leg = BoxFuture<'static, (usize, Box<RequestCtx>, Result<Attempted, Failed>)>;

impl Course {
    /// Lets the first targets answer, and somebody choose.
    pub(super) async fn fuse(&mut self, ctx: &mut RequestCtx) -> Result<Attempted, GatewayError> {
        let policy = self.combo.policy.clone();
        let width = policy.fusion_width.min(self.targets.len());
        let first: Vec<_> = self.targets.list().iter().take(width).cloned().collect();
        self.targets = Arc::new(first.into());
        let request = Box::new(ctx.canonical().await?.clone());
        let rounds = if policy.failover_before_retry { 1 + policy.max_retries } else { 1 };
        for round in 0..rounds {
            let answers = self.answers(ctx, &request, round > 0).await;
            match answers.len() {
                0 => {}
                1 => return deliver(ctx, answers),
                _ => return self.judge(ctx, request, answers).await,
            }
            if self.is_over(ctx) || ctx.is_spent() {
                break;
            }
        }
        Err(self.failed(ctx))
    }

    /// The answers of all that answer, in the order of the list.
    async fn answers(
        &mut self,
        ctx: &mut RequestCtx,
        request: &ChatRequest,
        is_again: bool,
    ) -> Vec<Material> {
        let mut legs: FuturesUnordered<Leg> = FuturesUnordered::new();
        for (place, planned) in self.targets.list().iter().enumerate() {
            let before = self.failures.take(place);
            let (combo, planned) = (self.combo.clone(), planned.clone());
            let mut bounds = self.bounds(ctx, place);
            bounds.timeout = Some(self.policy(place).target_timeout);
            bounds.queues = true;
            let retry_delay = self.policy(place).retry_delay;
            let mut branch = ctx.inner(Box::new(request.clone()), 0);
            legs.push(Box::pin(async move {
                if let Some(failed) = before.filter(|_| is_again)
                    && !sit_out(&mut branch, &failed, retry_delay, bounds.deadline).await
                {
                    return (place, branch, Err(failed));
                }
                let result = ask(&mut branch, &combo, &planned, bounds).await;
                (place, branch, result)
            }));
        }
        let mut answers = Vec::new();
        while let Some((place, mut branch, result)) = legs.next().await {
            let (answer, target) = (branch.material.take(), branch.target.clone());
            let step = branch.step.take();
            let upstream_dialect = branch.upstream_dialect;
            drop(branch);
            ctx.gather();
            match (result, answer, target) {
                (Err(failed), _, _) => self.failures.note(place, failed),
                (Ok(_), Some(answer), Some(target)) => {
                    let row = ctx.attempts.len().saturating_sub(1);
                    answers.push(Material { place, target, step, upstream_dialect, answer, row });
                }
                // Whoever answered has left its answer.
                (Ok(_), _, _) => {}
            }
        }
        answers.sort_by_key(|answer| answer.place);
        answers
    }

    /// Has the reply written. When the judge fails, the first of the answers is the reply.
    async fn judge(
        &self,
        ctx: &mut RequestCtx,
        request: Box<ChatRequest>,
        answers: Vec<Material>,
    ) -> Result<Attempted, GatewayError> {
        ctx.judging();
        let target = match self.judge_target(ctx) {
            Ok(target) => target,
            Err(why) => {
                tracing::warn!(request_id = %ctx.request_id, combo = %self.combo.name, "the judge is not asked: {why}");
                return deliver(ctx, answers);
            }
        };
        let brief = brief(&answers);
        let before = (ctx.canonical.take(), ctx.target.take());
        let added = brief.len();
        ctx.rewrite(inner::with_more(request, brief), added);
        ctx.deadline = Some(self.deadline);
        ctx.validation = self.combo.policy_of(&target).validation.clone();
        // Money was held for each of the others, and for the judge.
        ctx.owe_nothing();
        match accounts::run(ctx, &target, Patience::none(true)).await {
            Ok(answer) => Ok(answer),
            Err(failed) => {
                let why = &failed.error.message;
                tracing::warn!(request_id = %ctx.request_id, combo = %self.combo.name, "the judge failed: {why}");
                (ctx.canonical, ctx.target) = before;
                deliver(ctx, answers)
            }
        }
    }

    /// Who writes the reply: the combo's judge, else its first target.
    fn judge_target(&self, ctx: &mut RequestCtx) -> Result<Arc<Target>, String> {
        let found = combo::judge(&ctx.snapshot, &self.combo, self.targets.each().next());
        let target = found.ok_or_else(String::new)?.map_err(|error| error.to_string())?;
        if !admit::may_use_in(ctx, &self.combo, &target) {
            ctx.passed_over(&target, "key", preview::NOT_THEIRS);
            return Err(format!("the key may not use `{}`", target.full_name()));
        }
        if !ctx.is_payable(&target) {
            ctx.passed_over(&target, "budget", preview::UNPAID);
            return Err(format!("the budget has no room for `{}`", target.full_name()));
        }
        Ok(target)
    }
}

fn brief(answers: &[Material]) -> String {
    let mut brief = TASK.to_owned();
    for (number, material) in answers.iter().enumerate() {
        let _ = write!(brief, "\n\n[{}]\n{}", number + 1, inner::text_of(&material.answer));
    }
    brief
}

/// Gives the client the first of the answers as it is.
fn deliver(ctx: &mut RequestCtx, answers: Vec<Material>) -> Result<Attempted, GatewayError> {
    let Some(material) = answers.into_iter().next() else {
        return Err(GatewayError::new(
            omniroute_dialect::ir::ErrorKind::Internal,
            "internal_server_error",
            "there was no answer to give; this is a bug of the gateway",
        ));
    };
    // The last attempt is the one that answered.
    let row = ctx.attempts.remove(material.row);
    ctx.attempts.push(row);
    ctx.target = Some(material.target);
    ctx.step = material.step;
    ctx.upstream_dialect = material.upstream_dialect;
    inner::told(ctx, &material.answer)
}
