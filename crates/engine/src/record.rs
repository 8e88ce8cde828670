//! The last stage: what happened goes into the log, the counters and the metrics. Runs when the request is dropped,
//! so that no exit path can forget it: an answer sent, an error, a client that hung up, a panic.

use std::sync::Arc;

use omniroute_dialect::ir::Usage;
use omniroute_domain::limit::Meter;
use omniroute_domain::price::Units;
use omniroute_provider::Capability;

use crate::bodies::BodyNote;
use crate::ctx::{AnswerSource, Outcome, RequestCtx};
use crate::decision::Decision;
use crate::ports::{AttemptRow, CHAT, COUNT, Charge, HANDOFF, RequestRow, SIMILAR};
use crate::telemetry::{Phase, Phases};
use crate::time::millis;

/// Logged for a client that went away before its answer was complete (nginx's convention).
pub(crate) const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Drop for RequestCtx {
    fn drop(&mut self) {
        if self.bequeath() {
            return;
        }
        self.gather();
        if self.outcome.first_event.is_some() {
            self.reached(Phase::Stream);
        }
        self.note_unheard();
        let now_ms = self.engine.clock.now_ms();
        self.settle(now_ms);
        self.settle_money();
        if !self.arrival.is_logged {
            return;
        }
        let phases = self.all_phases();
        let mut row = self.row();
        row.bodies = self.leave_bodies(&row);
        self.engine.telemetry.observe(&row, &phases, now_ms);
        tracing::info!(
            request_id = %row.request_id,
            status = row.status,
            model = %row.requested_model,
            provider = row.provider.as_ref().map(tracing::field::display),
            attempts = row.attempts.len(),
            duration_ms = row.duration_ms,
            error = row.error.as_deref(),
            "request"
        );
        self.engine.recorder.record(row);
    }
}

impl RequestCtx {
    /// Gives back what was held only while running, and adds the tokens that are known now.
    fn settle(&mut self, now_ms: i64) {
        if self.charges.is_empty() {
            return;
        }
        let usage = self.total_usage();
        let tokens = usage.input_total().unwrap_or(0) + usage.output_total.unwrap_or(0);
        let corrections: smallvec::SmallVec<[Charge; 4]> = self
            .charges
            .drain(..)
            .filter_map(|charge| match charge.meter {
                Meter::Concurrency => Some(Charge { amount: -charge.amount, ..charge }),
                Meter::TokensPerMinute => {
                    let actual = i64::try_from(tokens).unwrap_or(i64::MAX);
                    Some(Charge { amount: actual - charge.amount, ..charge })
                }
                Meter::RequestsPerMinute | Meter::RequestsPerDay => None,
            })
            .collect();
        if !corrections.is_empty() {
            self.engine.counters.settle(&corrections, now_ms);
        }
    }

    /// When the phases were over, with those that the outcome tells of.
    fn all_phases(&mut self) -> Phases {
        let Outcome { sent, head, first_event, .. } = &self.outcome;
        let mut phases = self.phases;
        for (phase, at) in [(Phase::Queue, sent), (Phase::Connect, head), (Phase::FirstByte, first_event)] {
            phases.end_at(phase, *at, self.started);
        }
        phases.end(Phase::Finalize, self.since_arrival());
        phases
    }

    /// What all attempts used together.
    pub(crate) fn total_usage(&self) -> Usage {
        let mut usage = self.outcome.usage;
        for attempt in &self.attempts {
            usage.add(&attempt.usage);
        }
        usage
    }

    /// The decision, with the policies that had a say in it.
    fn decided_under_policies(&mut self) -> Option<Box<Decision>> {
        let mut decision = self.decision.take().or_else(|| self.decided_against())?;
        decision.budget = self.money.thrift.as_ref().map(ToString::to_string);
        decision.handoff = self.told().map(|told| told.from().to_owned());
        if let Some(steering) = &mut self.steering {
            decision.steered(steering);
        }
        Some(decision)
    }

    fn request_type(&self) -> &'static str {
        match self.is_aside() {
            true => HANDOFF,
            false if self.is_count => COUNT,
            false => self.ability().map_or(CHAT, Capability::request_type),
        }
    }

    fn row(&mut self) -> RequestRow {
        let mut usage = self.total_usage();
        let cost_nano = match self.source {
            AnswerSource::Upstream => self.cost_nano(),
            AnswerSource::Repeated | AnswerSource::Cache => Some(0),
        };
        let mut bills = self.take_bills();
        bills.extend(self.take_saved());
        let outcome = std::mem::take(&mut self.outcome);
        let envelope = self.envelope.take();
        let mut attempts = std::mem::take(&mut self.attempts);
        if let (Some(sent), Some(last)) = (outcome.calling, attempts.last_mut()) {
            last.duration_ms = millis(self.engine.clock.instant().saturating_duration_since(sent));
            last.usage = outcome.usage;
        }
        if let [_, _, ..] = &*attempts
            && let Some(answered) = attempts.iter().rfind(|attempt| attempt.failure.is_none())
        {
            // Others may have been billed in the tier that was asked for.
            usage.tier = answered.usage.tier;
        }
        let is_guessed = attempts.iter().any(AttemptRow::is_estimated);
        let mut units: Option<Box<Units>> = None;
        for theirs in attempts.iter().filter_map(|attempt| attempt.units.as_deref()) {
            units.get_or_insert_default().add(theirs);
        }
        let last = attempts.last();
        let billed = bills.last().filter(|bill| bill.attempt as usize == attempts.len());
        let (price_source, price_version) = match billed {
            Some(bill) => (bill.price_source, bill.price_version.clone()),
            None => last
                .and_then(|attempt| self.snapshot.quote(&attempt.provider, &attempt.model))
                .map_or((None, None), |quote| (Some(quote.source.as_str()), Some(quote.version.clone()))),
        };
        let status = outcome.status.unwrap_or(CLIENT_CLOSED_REQUEST);
        RequestRow {
            id: self.engine.new_row_id(self.started_ms),
            request_id: self.request_id.clone(),
            method: std::mem::take(&mut self.arrival.method),
            path: self.arrival.path.clone(),
            status,
            request_type: self.request_type(),
            stream: envelope.as_ref().is_some_and(|envelope| envelope.stream),
            requested_model: envelope
                .map(|envelope| one_line(envelope.model))
                .or_else(|| self.about.as_ref().map(|known| known.asked.as_str().into()))
                .unwrap_or_default(),
            model: last
                .map(|attempt| attempt.model.clone())
                .or_else(|| bills.first().map(|bill| bill.model.clone()))
                .unwrap_or_default(),
            provider: last.map(|attempt| attempt.provider.clone()),
            connection: last.map(|attempt| attempt.connection.clone()),
            connection_name: last.map(|attempt| attempt.connection_name.clone()),
            api_key: self.caller.as_ref().map(|caller| caller.id.clone()),
            api_key_name: self.caller.as_ref().map(|caller| caller.name.clone()),
            client_dialect: self.arrival.dialect.id(),
            upstream_dialect: self.upstream_dialect,
            duration_ms: millis(self.engine.clock.instant().saturating_duration_since(self.started)),
            ttft_ms: outcome.first_event.map(|at| millis(at.saturating_duration_since(self.started))),
            overhead_us: outcome.sent.map_or(0, |at| {
                i64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(i64::MAX)
            }),
            usage,
            units,
            usage_estimated: outcome.usage_estimated || is_guessed,
            cost_nano,
            price_source,
            price_version,
            source: match (self.source, self.similarity) {
                (AnswerSource::Cache, Some(_)) => SIMILAR,
                (source, _) => source.as_str(),
            },
            similarity: self.similarity,
            combo: self.combo.take(),
            combo_step: self.step.take(),
            is_fallback: self.tally.as_ref().is_some_and(|tally| tally.has_fallen_back()),
            bills,
            attempts,
            error: if outcome.status.is_none() && outcome.error.is_none() {
                Some("the client closed the connection".to_owned())
            } else {
                outcome.error
            },
            error_code: outcome.error_code,
            losses: std::mem::take(&mut self.losses),
            decision: self.decided_under_policies(),
            bodies: BodyNote::Off,
        }
    }
}

/// A client's text as it may stand in a line of the log.
fn one_line(text: Arc<str>) -> Arc<str> {
    if text.chars().any(char::is_control) { text.replace(char::is_control, "\u{fffd}").into() } else { text }
}
