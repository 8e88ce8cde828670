//! A pipeline: each step works on what the one before it made of the request; the last one answers the client.

use std::ops::Range;

use omniroute_dialect::ir::{ChatRequest, ErrorKind};
use omniroute_domain::combo::{ComboState, LeftOut, Planned, Rule, render};

use super::ask::ask;
use super::targets::Course;
use super::{Attempted, inner};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// A step, and the targets that can do it: one, or those of the combo that it names.
pub(super) struct Stage {
    step: usize,
    pub(super) targets: Range<usize>,
}

impl Stage {
    /// In errors.
    pub(super) fn name(&self, combo: &ComboState) -> String {
        format!("step `{}` of pipeline `{}`", combo.steps[self.step].id, combo.name)
    }
}

/// The steps with their targets, in order. One that has none fails the request, unless it is not for such requests.
pub(super) fn stages(
    combo: &ComboState,
    targets: &[Planned],
    left_out: &[LeftOut],
) -> Result<Vec<Stage>, GatewayError> {
    let mut stages: Vec<Stage> = Vec::new();
    for (place, planned) in targets.iter().enumerate() {
        let step = planned.path.first().map_or(0, |outermost| outermost.step);
        match stages.last_mut().filter(|stage| stage.step == step) {
            Some(stage) => stage.targets.end = place + 1,
            None => stages.push(Stage { step, targets: place..place + 1 }),
        }
    }
    for (at, step) in combo.steps.iter().enumerate() {
        let is_there = stages.iter().any(|stage| stage.step == at);
        let is_for_others = left_out.iter().any(|left| left.step == step.id && left.rule == Rule::Condition);
        if !is_there && !is_for_others {
            let reason = left_out.iter().find(|left| left.step == step.id);
            let reason = reason.map_or("the key may not use it", |left| left.reason.as_str());
            let message = format!(
                "step `{}` of pipeline `{}` has no target ({reason}); see /api/combos",
                step.id, combo.name
            );
            return Err(GatewayError::new(ErrorKind::Unavailable, "no_targets", message));
        }
    }
    Ok(stages)
}

impl Course {
    /// Goes through the steps. A request that answers a tool call belongs to the last one alone.
    pub(super) async fn pipe(&mut self, ctx: &mut RequestCtx) -> Result<Attempted, GatewayError> {
        let stages = stages(&self.combo, self.targets.list(), &self.left_out)?;
        let Some((last, before)) = stages.split_last() else { return Err(self.nobody()) };
        let request = Box::new(ctx.canonical().await?.clone());
        let Some(input) = inner::last_words(&request).filter(|_| !before.is_empty()) else {
            return self.stage(ctx, last, None).await;
        };
        let mut output: Option<String> = None;
        for stage in before {
            let (asked, added) = self.asked(stage, request.clone(), &input, output.as_deref());
            output = Some(self.work(ctx, stage, inner::without_calls(asked), added).await?);
        }
        let (asked, added) = self.asked(last, request, &input, output.as_deref());
        self.stage(ctx, last, Some((asked, added))).await
    }

    /// What a step is asked, and by how much it is longer than what the client sent.
    fn asked(
        &self,
        stage: &Stage,
        request: Box<ChatRequest>,
        input: &str,
        output: Option<&str>,
    ) -> (Box<ChatRequest>, usize) {
        let Some(output) = output else { return (request, 0) };
        let text = render(self.combo.steps[stage.step].template.as_deref(), input, output);
        let added = text.len().saturating_sub(input.len());
        (inner::with_last_words(request, text), added)
    }

    /// Has a step done whose answer is the next one's input.
    async fn work(
        &mut self,
        ctx: &mut RequestCtx,
        stage: &Stage,
        request: Box<ChatRequest>,
        added: usize,
    ) -> Result<String, GatewayError> {
        for place in stage.targets.clone() {
            let mut bounds = self.stage_bounds(ctx, stage, place);
            bounds.is_reply = false;
            let mut branch = ctx.inner(request.clone(), added);
            let result = ask(&mut branch, &self.combo, &self.targets.list()[place], bounds).await;
            let answer = branch.material.take();
            drop(branch);
            ctx.gather();
            match (result, answer) {
                (Ok(_), answer) => {
                    let text = answer.map(|answer| inner::text_of(&answer)).unwrap_or_default();
                    if text.is_empty() {
                        let message = format!(
                            "{} answered without any text, so there is nothing to go on with",
                            stage.name(&self.combo)
                        );
                        return Err(GatewayError::new(ErrorKind::BadGateway, "empty_response", message));
                    }
                    return Ok(text);
                }
                (Err(failed), _) => self.failures.note(place, failed),
            }
            if self.is_over(ctx) {
                break;
            }
        }
        Err(self.broken(ctx, stage))
    }

    /// Has the last step done: its answer is the client's.
    async fn stage(
        &mut self,
        ctx: &mut RequestCtx,
        stage: &Stage,
        asked: Option<(Box<ChatRequest>, usize)>,
    ) -> Result<Attempted, GatewayError> {
        if let Some((request, added)) = asked {
            ctx.rewrite(request, added);
        }
        for place in stage.targets.clone() {
            let bounds = self.stage_bounds(ctx, stage, place);
            match ask(ctx, &self.combo, &self.targets.list()[place], bounds).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => self.failures.note(place, failed),
            }
            if self.is_over(ctx) {
                break;
            }
        }
        Err(self.broken(ctx, stage))
    }

    fn stage_bounds(&self, ctx: &RequestCtx, stage: &Stage, place: usize) -> super::ask::Bounds {
        let policy = self.policy(place);
        let mut bounds = self.bounds(ctx, place);
        bounds.tries = 1 + policy.max_retries;
        bounds.queues = place + 1 == stage.targets.end;
        bounds.timeout = (!bounds.queues).then_some(policy.target_timeout);
        bounds
    }

    fn broken(&mut self, ctx: &RequestCtx, stage: &Stage) -> GatewayError {
        let name = stage.name(&self.combo);
        self.failed_as(ctx, |error| format!("{name} failed: {error}"))
    }
}
