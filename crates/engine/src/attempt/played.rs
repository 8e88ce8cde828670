//! One request that is only played: who would be asked, and how likely it is that it comes to that. Targets fail as often as they
//! did of late; what the next plan depends on follows what was drawn.
//!
//! Likelihoods are reckoned, not drawn: of a target that fails one time in ten the next one is asked by a tenth of each request. Only
//! what the next order depends on (who answered last, who was asked how often) needs one outcome, and has it from the request's draw.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use omniroute_domain::combo::{self, ComboState, LeftOut, Planned};
use omniroute_domain::entity::ConnectionId;
use omniroute_domain::resolve::Target;
use omniroute_domain::routing::{Draw, Manner, Measured};
use smallvec::SmallVec;

use super::pipeline::stages;
use super::targets::MAX_CALLS;
use super::trying::{Trying, played};
use super::{inner, round};
use crate::admit;
use crate::ctx::RequestCtx;
use crate::error::GatewayError;
use crate::policy;
use crate::preview::{self, Skip};
use crate::resolve::Candidates;

/// A target of a combo over all requests that were played.
#[derive(Debug)]
pub struct Row {
    /// The ids of the steps that lead to it, the outermost combo's first.
    pub steps: Vec<Arc<str>>,
    /// Provider id and model, as the provider knows it.
    pub target: (Arc<str>, Arc<str>),
    /// How often it answered of late, on which the rest is founded; `None` = it was never asked and is taken to answer always.
    pub measured: Option<Measured>,
    /// Requests that it was asked by before anybody had failed.
    pub first: u32,
    /// Requests that would ask it, as far as is to be expected; the first ones among them.
    pub asked: f64,
    /// Those of them that ask it because somebody before it failed.
    pub fallbacks: f64,
    /// Its answers, as far as is to be expected.
    pub answers: f64,
    /// Requests whose turn it was not there for, and why that was the first time.
    pub skipped: u32,
    /// Why it was not.
    pub skip: Option<Skip>,
    /// What a request costs there, in billionths of a US dollar; `None` = unknown.
    pub cost_nano: Option<i64>,
    /// Calls that are to be paid for, as far as is to be expected.
    pub paid: f64,
    /// What they cost together, in billionths of a US dollar; those of unknown price left out.
    pub spent_nano: f64,
    /// Those of unknown price.
    pub unpriced: f64,
    /// The accounts that led the calls that were drawn, and how many of them.
    pub accounts: Vec<(ConnectionId, Arc<str>, u32)>,
    latency_ms: Option<f64>,
}

impl Row {
    fn of(planned: &Planned, now_ms: i64) -> Self {
        let stats = planned.path.last().map(|place| &place.step().stats);
        Self {
            steps: planned.path.iter().map(|place| place.step().id.clone()).collect(),
            target: (planned.target.provider.id.as_str().into(), planned.target.model.clone()),
            measured: stats.and_then(|stats| stats.measured(now_ms)),
            first: 0,
            asked: 0.0,
            fallbacks: 0.0,
            answers: 0.0,
            skipped: 0,
            skip: None,
            cost_nano: planned.cost_nano,
            paid: 0.0,
            spent_nano: 0.0,
            unpriced: 0.0,
            accounts: Vec::new(),
            latency_ms: stats.and_then(|stats| stats.latency_ms()),
        }
    }

    /// How likely it is to answer.
    fn rate(&self) -> f64 {
        self.measured.map_or(1.0, |measured| measured.rate())
    }

    #[allow(clippy::cast_precision_loss, reason = "money of an estimate")]
    fn pay(&mut self, calls: f64, cost_nano: Option<i64>) {
        self.paid += calls;
        match cost_nano {
            Some(nano) => self.spent_nano += calls * nano as f64,
            None => self.unpriced += calls,
        }
    }

    fn led_by(&mut self, id: &ConnectionId, name: &Arc<str>) {
        match self.accounts.iter_mut().find(|(known, _, _)| known == id) {
            Some((_, _, count)) => *count += 1,
            None => self.accounts.push((id.clone(), name.clone(), 1)),
        }
    }
}

/// The targets of all requests that were played, in the order in which they came up.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) list: Vec<Row>,
    by_path: HashMap<SmallVec<[(usize, usize); 2]>, usize>,
}

impl Rows {
    /// The place of a target; what is known of it is as it was when it came up first.
    fn place(&mut self, planned: &Planned, now_ms: i64) -> usize {
        let key = planned.path.iter().map(|place| (Arc::as_ptr(&place.combo).addr(), place.step)).collect();
        *self.by_path.entry(key).or_insert_with(|| {
            self.list.push(Row::of(planned, now_ms));
            self.list.len() - 1
        })
    }
}

/// What became of a request.
pub(crate) struct Outcome {
    /// Whether anybody was asked.
    pub(crate) is_asked: bool,
    /// How likely it got an answer.
    pub(crate) answered: f64,
    /// Who made a reply of several answers, and how likely it came to that.
    pub(crate) judged: Option<(Arc<Target>, f64)>,
}

/// Plays a request over the targets of its plan.
pub(crate) async fn play(
    ctx: &mut RequestCtx,
    combo: &Arc<ComboState>,
    targets: &[Planned],
    manner: Manner,
    left_out: &[LeftOut],
    rows: &mut Rows,
) -> Result<Outcome, GatewayError> {
    let now_ms = ctx.started_ms;
    // Told even of those that nobody comes to.
    for planned in targets {
        rows.place(planned, now_ms);
    }
    // Another draw than that of the order.
    let draw = Draw::new(ctx.seed ^ 0x5eed_0f0d_d5a5_c0de);
    let mut game = Game { ctx, targets, rows, draw, now_ms, turn: Turn::First, calls: 0 };
    let (answered, judged) = match manner {
        Manner::OneByOne => (1.0 - game.one_by_one(0..targets.len(), 1.0, true).0, None),
        Manner::Race => (game.race(combo.policy.race_width), None),
        Manner::Fusion => game.fuse(combo),
        Manner::Pipeline => (game.pipe(combo, left_out).await?, None),
    };
    let is_asked = game.calls > 0;
    ctx.trying = None;
    Ok(Outcome { is_asked, answered, judged })
}

/// Why a target is asked next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nobody was before.
    First,
    /// The one before answered.
    Next,
    /// The one before failed.
    Fallback,
}

/// A target that can be asked.
struct Stood<'a> {
    planned: &'a Planned,
    row: usize,
    accounts: Candidates<'a>,
}

struct Game<'a, 'c> {
    ctx: &'c mut RequestCtx,
    targets: &'a [Planned],
    rows: &'c mut Rows,
    draw: Draw,
    now_ms: i64,
    turn: Turn,
    calls: usize,
}

impl<'a> Game<'a, '_> {
    /// The target at a place, if it can be asked.
    fn stand(&mut self, place: usize) -> Option<Stood<'a>> {
        let planned = &self.targets[place];
        let (row, target) = (self.rows.place(planned, self.now_ms), &*planned.target);
        self.ctx.trying = Some(Trying::previewed(planned, self.ctx.started));
        let is_allowed = policy::steer(self.ctx, target).is_ok();
        let accounts =
            if is_allowed { round::open(self.ctx, target, self.now_ms) } else { Candidates::new() };
        if !accounts.is_empty() {
            return Some(Stood { planned, row, accounts });
        }
        let row = &mut self.rows.list[row];
        row.skipped += 1;
        if row.skip.is_none() {
            row.skip = preview::why_not(self.ctx, target);
        }
        None
    }

    /// Counts a target that is asked by so much of a request.
    fn ask(&mut self, stood: &Stood<'_>, share: f64) -> f64 {
        let row = &mut self.rows.list[stood.row];
        row.asked += share;
        match self.turn {
            Turn::First => row.first += 1,
            Turn::Next => {}
            Turn::Fallback => row.fallbacks += share,
        }
        self.calls += 1;
        row.rate()
    }

    /// Draws whether it answers; an account leads the call.
    fn drawn(&mut self, stood: &Stood<'_>) -> bool {
        let row = &mut self.rows.list[stood.row];
        let is_good = self.draw.unit() < row.rate();
        if let Some(account) = round::lead(self.ctx, &stood.planned.target, &stood.accounts, self.now_ms) {
            account.health.stats.play(is_good, self.now_ms);
            row.led_by(&account.id, &account.name);
        }
        is_good
    }

    /// Asks one after the other until one answers. `open` is how likely it is that anybody is asked at all, `is_open` whether that
    /// was drawn; gives the same of what is left when all were.
    fn one_by_one(&mut self, places: Range<usize>, mut open: f64, mut is_open: bool) -> (f64, bool) {
        for place in places {
            if open <= 0.0 || self.calls >= MAX_CALLS {
                break;
            }
            let Some(stood) = self.stand(place) else { continue };
            let rate = self.ask(&stood, open);
            self.turn = Turn::Fallback;
            let row = &mut self.rows.list[stood.row];
            row.answers += open * rate;
            row.pay(open * rate, stood.planned.cost_nano);
            if is_open {
                let is_good = self.drawn(&stood);
                played(&stood.planned.path, is_good, self.now_ms);
                is_open = !is_good;
            }
            open *= 1.0 - rate;
        }
        (open, is_open)
    }

    /// The first ones at once: of those that answer the one that is usually fastest wins, and all are paid for.
    fn race(&mut self, width: usize) -> f64 {
        let width = width.clamp(1, self.targets.len().max(1)).min(self.targets.len());
        let mut runners: Vec<(Stood<'a>, f64, bool)> = Vec::new();
        for place in 0..width {
            let Some(stood) = self.stand(place) else { continue };
            let rate = self.ask(&stood, 1.0);
            let is_good = self.drawn(&stood);
            self.rows.list[stood.row].pay(rate, stood.planned.cost_nano);
            runners.push((stood, rate, is_good));
        }
        let usual = |stood: &Stood<'_>| self.rows.list[stood.row].latency_ms.unwrap_or(f64::INFINITY);
        runners.sort_by(|a, b| usual(&a.0).total_cmp(&usual(&b.0)));
        let (mut open, mut is_open) = (1.0, true);
        for (stood, rate, is_good) in &runners {
            self.rows.list[stood.row].answers += open * rate;
            open *= 1.0 - rate;
            // Who loses is called off, which says nothing of it.
            if !is_good || is_open {
                played(&stood.planned.path, *is_good, self.now_ms);
            }
            is_open &= !is_good;
        }
        if !runners.is_empty() {
            self.turn = Turn::Fallback;
        }
        1.0 - self.one_by_one(width..self.targets.len(), open, is_open).0
    }

    /// All at once, and a judge where at least two answer.
    fn fuse(&mut self, combo: &ComboState) -> (f64, Option<(Arc<Target>, f64)>) {
        let width = combo.policy.fusion_width.min(self.targets.len());
        // How likely none has answered so far, and one.
        let (mut none, mut one) = (1.0, 0.0);
        for place in 0..width {
            let Some(stood) = self.stand(place) else { continue };
            let rate = self.ask(&stood, 1.0);
            let is_good = self.drawn(&stood);
            played(&stood.planned.path, is_good, self.now_ms);
            let row = &mut self.rows.list[stood.row];
            row.answers += rate;
            row.pay(rate, stood.planned.cost_nano);
            one = one * (1.0 - rate) + none * rate;
            none *= 1.0 - rate;
        }
        self.ctx.trying = None;
        let first = self.targets.first().map(|first| &first.target);
        let judge = combo::judge(&self.ctx.snapshot, combo, first).and_then(Result::ok);
        let judge = judge.filter(|judge| {
            admit::may_use_in(self.ctx, combo, judge)
                && self.ctx.is_payable(judge)
                && policy::steer(self.ctx, judge).is_ok()
                && !round::open(self.ctx, judge, self.now_ms).is_empty()
        });
        let several = (1.0 - none - one).max(0.0);
        (1.0 - none, judge.map(|judge| (judge, several)))
    }

    /// Step after step, each with its own targets; one that comes to nothing ends the request.
    async fn pipe(&mut self, combo: &ComboState, left_out: &[LeftOut]) -> Result<f64, GatewayError> {
        let stages = stages(combo, self.targets, left_out)?;
        // The result of a tool call is for the last one alone.
        let skipped = match inner::last_words(self.ctx.canonical().await?) {
            Some(_) => 0,
            None => stages.len().saturating_sub(1),
        };
        let (mut reached, mut is_reached) = (1.0, true);
        for stage in stages.iter().skip(skipped) {
            let (left, is_left) = self.one_by_one(stage.targets.clone(), reached, is_reached);
            reached -= left;
            is_reached &= !is_left;
            self.turn = Turn::Next;
        }
        Ok(if stages.is_empty() { 0.0 } else { reached })
    }
}
