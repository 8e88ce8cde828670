//! What is kept of a decision, as JSON: candidates that differ in nothing but their names stand together, and names are places
//! on a page of names.

use std::collections::{BTreeMap, HashMap};

use bytes::BytesMut;
use omniroute_engine::decision::{Decision, RecordedCandidate};
use omniroute_engine::ports::RequestRow;
use omniroute_wire::json_out::{self, Array, Object};
use serde::Deserialize;
use smallvec::SmallVec;

use super::lists;
use super::names::Names;
use super::{LoggedCandidate, LoggedDecision};
use crate::error::StoreError;

/// Most candidates of one decision that are kept.
pub(super) const MAX_CANDIDATES: usize = 160;
/// Most of them that are kept with their factors.
const MAX_SCORED: usize = 24;

/// Candidates in a row of whom the same is to be said, as they are read.
#[derive(Debug, Deserialize)]
pub(super) struct Alike {
    /// The places of their names. A negative one stands for all after the one before it, up to that one.
    names: Vec<i64>,
    /// The name of the only one, where the page had no room for it.
    name: Option<Own>,
    rule: Option<String>,
    reason: Option<String>,
    until: Option<i64>,
    #[serde(rename = "cost")]
    cost_nano: Option<i64>,
    wave: Option<usize>,
    /// Whether each after the first is asked a wave later than the one before it.
    #[serde(default)]
    rising: bool,
    score: Option<f64>,
    #[serde(default)]
    factors: BTreeMap<String, f64>,
}

/// A name that stands on no page.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Own {
    pub(super) provider: Option<String>,
    pub(super) model: String,
    pub(super) connection: Option<(String, String)>,
    pub(super) dialect: Option<String>,
}

/// Appends what is kept of the decision of a row.
pub(crate) fn write(row: &RequestRow, decision: &Decision, names: &mut Names, out: &mut BytesMut) {
    if let Some(place) = names.list(row, decision) {
        return lists::write(decision, place, out);
    }
    let mut object = Object::begin(out);
    begin(&mut object, row, decision);
    object.u64("seed", decision.seed);
    object.opt_u64("turn", decision.combo.as_ref().map(|_| decision.turn));
    object.opt_str("task", decision.task.map(|task| task.as_str()));
    if !decision.policies.is_empty() {
        let mut policies = object.array("policies");
        for name in &decision.policies {
            policies.str(name);
        }
        policies.end();
    }
    if !decision.observed.is_empty() {
        let mut observed = object.array("observed");
        for one in &decision.observed {
            let mut told = observed.object();
            told.str("policy", &one.policy).str("effect", &one.effect);
            told.end();
        }
        observed.end();
    }
    object.opt_str("budget", decision.budget.as_deref());
    object.opt_str("handoffFrom", decision.handoff.as_deref());
    let mut groups = Groups::begin(object.array("candidates"), names);
    decision.visit(row.client_dialect, |candidate| groups.add(candidate));
    groups.end();
    object.i64("decidedAt", decision.decided_at);
    object.end();
}

/// How the candidates were found and ordered.
pub(super) fn begin(object: &mut Object<'_>, row: &RequestRow, decision: &Decision) {
    object.opt_str("via", decision.via);
    // A request that is refused does not come to the combo that it leads to.
    let combo = row.combo.as_deref().or(decision.combo.as_ref().map(|combo| &*combo.name));
    object.opt_str("combo", combo);
    object.opt_str("strategy", decision.strategy);
}

/// Candidates, put together as they come.
pub(super) struct Groups<'o, 'n, 'a> {
    out: Array<'o>,
    names: &'n mut Names,
    /// How many came.
    count: usize,
    open: Option<Group<'a>>,
}

/// Those of whom the same is to be said.
struct Group<'a> {
    first: RecordedCandidate<'a>,
    /// The places of their names; empty where the page had no room for the only one's.
    places: SmallVec<[i64; 16]>,
    rising: bool,
    with_factors: bool,
}

impl<'o, 'n, 'a> Groups<'o, 'n, 'a> {
    pub(super) fn begin(out: Array<'o>, names: &'n mut Names) -> Self {
        Self { out, names, count: 0, open: None }
    }

    pub(super) fn add(&mut self, candidate: RecordedCandidate<'a>) {
        let number = self.count;
        if number >= MAX_CANDIDATES {
            return;
        }
        self.count += 1;
        let place = self.names.place(&candidate);
        let with_factors = number < MAX_SCORED;
        if let (Some(group), Some(place)) = (&mut self.open, place)
            && group.with_factors == with_factors
            && group.takes(&candidate)
        {
            group.places.push(place);
            return;
        }
        let places = place.into_iter().collect();
        let group = Group { first: candidate, places, rising: false, with_factors };
        if let Some(closed) = self.open.replace(group) {
            closed.write(self.out.object());
        }
    }

    pub(super) fn end(mut self) {
        if let Some(last) = self.open.take() {
            last.write(self.out.object());
        }
        self.out.end();
    }
}

impl Group<'_> {
    /// Whether the same is to be said of the next candidate, and it is asked when it would be in this group: all at once, or
    /// each a wave later. The second decides which.
    fn takes(&mut self, next: &RecordedCandidate<'_>) -> bool {
        let RecordedCandidate {
            whose: _,
            provider: _,
            model: _,
            connection: _,
            dialect: _,
            wave,
            skip,
            cost_nano,
            score,
        } = &self.first;
        let count = self.places.len();
        let is_alike = *skip == next.skip && *cost_nano == next.cost_nano && *score == next.score;
        if count == 0 || !is_alike {
            return false;
        }
        let Some((first, wave)) = wave.zip(next.wave) else { return *wave == next.wave };
        if count == 1 {
            self.rising = wave.checked_sub(first) == Some(1);
        }
        wave == wave_of(count, first, self.rising)
    }

    fn write(&self, mut object: Object<'_>) {
        let RecordedCandidate {
            whose: _,
            provider,
            model,
            connection,
            dialect,
            wave,
            skip,
            cost_nano,
            score,
        } = self.first;
        let mut names = object.array("names");
        let mut rest = &*self.places;
        while let [first, others @ ..] = rest {
            json_out::i64(names.element(), *first);
            let run = others.iter().zip(*first + 1..).take_while(|(place, next)| *place == next).count();
            rest = others;
            if run > 1 {
                json_out::i64(names.element(), -others[run - 1]);
                rest = &others[run..];
            }
        }
        names.end();
        if self.places.is_empty() {
            let mut own = object.object("name");
            own.opt_str("provider", provider).str("model", model);
            if let Some((id, name)) = connection {
                let mut connection = own.array("connection");
                connection.str(id).str(name);
                connection.end();
            }
            own.opt_str("dialect", dialect);
            own.end();
        }
        if let Some(skip) = skip {
            object.str("rule", skip.rule).str("reason", skip.reason);
            if let Some(until) = skip.until {
                object.i64("until", until);
            }
        }
        if let Some(cost_nano) = cost_nano {
            object.i64("cost", cost_nano);
        }
        object.opt_u64("wave", wave.map(|wave| wave as u64));
        if self.rising {
            object.bool("rising", true);
        }
        if let Some(score) = score {
            number(&mut object, "score", score.total);
            if self.with_factors {
                let mut factors = object.object("factors");
                score.factors().for_each(|(factor, value)| number(&mut factors, factor.name(), value));
                factors.end();
            }
        }
        object.end();
    }
}

/// The wave of one of a group.
fn wave_of(number: usize, first: usize, is_rising: bool) -> usize {
    if is_rising { first.saturating_add(number) } else { first }
}

/// A number to six places behind the point: scores that differ by less are equal.
fn number(object: &mut Object<'_>, name: &str, value: f64) {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.is_finite() {
        object.raw(name, &rounded.to_string());
    }
}

/// The places of a group, one by one.
fn unfolded(names: &[i64]) -> Vec<i64> {
    let mut places: Vec<i64> = Vec::with_capacity(names.len());
    for name in names {
        match (places.last(), name) {
            // No more than a decision may have, whatever stands there.
            (Some(last), ..0) => places.extend((*last + 1..=name.saturating_neg()).take(MAX_CANDIDATES)),
            _ => places.push(*name),
        }
    }
    places
}

/// The decision with its names.
pub(super) fn told(
    kept: LoggedDecision<Alike>,
    names: &HashMap<i64, Own>,
) -> Result<LoggedDecision, StoreError> {
    Ok(LoggedDecision {
        via: kept.via,
        combo: kept.combo,
        strategy: kept.strategy,
        seed: kept.seed,
        turn: kept.turn,
        task: kept.task,
        policies: kept.policies,
        observed: kept.observed,
        budget: kept.budget,
        handoff_from: kept.handoff_from,
        candidates: candidates(kept.candidates, names)?,
        decided_at: kept.decided_at,
    })
}

/// The candidates of these groups with their names.
pub(super) fn candidates(
    groups: Vec<Alike>,
    names: &HashMap<i64, Own>,
) -> Result<Vec<LoggedCandidate>, StoreError> {
    let mut candidates = Vec::new();
    for group in groups {
        let own = group.name.iter().map(|own| Ok(own.clone()));
        let places = unfolded(&group.names);
        let on_page = places.iter().map(|place| {
            let found = names.get(place).cloned();
            found.ok_or_else(|| StoreError::Damaged(format!("routing_names: place {place} is missing")))
        });
        for (number, name) in own.chain(on_page).enumerate() {
            let Own { provider, model, connection, dialect } = name?;
            let (connection_id, connection_name) = connection.unzip();
            candidates.push(LoggedCandidate {
                provider,
                model,
                connection_id,
                connection_name,
                dialect,
                rule: group.rule.clone(),
                reason: group.reason.clone(),
                until: group.until,
                cost_nano: group.cost_nano,
                wave: group.wave.map(|first| wave_of(number, first, group.rising)),
                score: group.score,
                factors: group.factors.clone(),
            });
        }
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use omniroute_engine::preview::Skip;

    use super::*;

    fn candidate(
        model: &'static str,
        cost_nano: i64,
        rule: Option<&'static str>,
    ) -> RecordedCandidate<'static> {
        RecordedCandidate {
            provider: Some("openai"),
            model,
            connection: Some(("c1", "work")),
            dialect: Some("openai"),
            skip: rule.map(|rule| Skip { rule, reason: "because", until: Some(7) }),
            cost_nano: Some(cost_nano),
            score: None,
            wave: Some(1),
            ..RecordedCandidate::default()
        }
    }

    /// A decision with these candidates as it is written.
    fn written(candidates: &[RecordedCandidate<'_>], names: &mut Names) -> String {
        let mut out = BytesMut::new();
        let mut object = Object::begin(&mut out);
        object.str("via", "combo").str("strategy", "priority").u64("seed", 1);
        let mut groups = Groups::begin(object.array("candidates"), names);
        candidates.iter().for_each(|candidate| groups.add(*candidate));
        groups.end();
        object.i64("decidedAt", 5);
        object.end();
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn read(text: &str) -> LoggedDecision<Alike> {
        serde_json::from_str(text).unwrap()
    }

    /// Written, and read again.
    fn again(candidates: &[RecordedCandidate<'_>], names: &mut Names) -> LoggedDecision {
        let text = written(candidates, names);
        let own = |name: &super::super::Name| Own {
            provider: name.provider.as_deref().map(str::to_owned),
            model: name.model.to_string(),
            connection: name.connection.as_ref().map(|(id, name)| (id.to_string(), name.to_string())),
            dialect: name.dialect.map(str::to_owned),
        };
        let names = names.unwritten().iter().map(|(place, name)| (*place, own(name))).collect();
        told(read(&text), &names).unwrap()
    }

    #[test]
    fn candidates_alike_stand_together_and_are_told_apart_again() {
        let candidates = [
            candidate("a", 1, None),
            candidate("b", 1, None),
            candidate("c", 2, None),
            candidate("d", 2, Some("cooldown")),
            candidate("a", 1, None),
        ];
        let mut names = Names::default();
        let text = written(&candidates, &mut names);
        let groups = read(&text).candidates;
        let places: Vec<&[i64]> = groups.iter().map(|group| &*group.names).collect();
        assert_eq!(places, [&[0, 1][..], &[2], &[3], &[0]]);

        let lost = told(read(&text), &HashMap::new());
        assert!(lost.unwrap_err().to_string().contains("place 0 is missing"));

        let read = again(&candidates, &mut names);
        let back = read.candidates.iter().map(|it| {
            (
                &*it.model,
                it.connection_id.as_deref(),
                it.connection_name.as_deref(),
                it.cost_nano,
                it.rule.as_deref(),
            )
        });
        let told = |model, cost, rule| (model, Some("c1"), Some("work"), Some(cost), rule);
        assert_eq!(
            back.collect::<Vec<_>>(),
            [
                told("a", 1, None),
                told("b", 1, None),
                told("c", 2, None),
                told("d", 2, Some("cooldown")),
                told("a", 1, None),
            ]
        );
        assert_eq!(
            (read.candidates[3].reason.as_deref(), read.candidates[3].until),
            (Some("because"), Some(7))
        );
    }

    #[test]
    fn places_in_a_row_are_told_by_the_first_and_the_last() {
        for (places, kept) in [
            (&[0, 1, 2, 3][..], &[0, -3][..]),
            (&[7, 8], &[7, 8]),
            (&[4, 5, 6, 2, 3, 9, 10, 11, 12], &[4, -6, 2, 3, 9, -12]),
            (&[3, 2, 1], &[3, 2, 1]),
            (&[5, 5, 5], &[5, 5, 5]),
            (&[], &[]),
        ] {
            let group = Group {
                first: candidate("a", 1, None),
                places: places.iter().copied().collect(),
                rising: false,
                with_factors: false,
            };
            let mut out = BytesMut::new();
            group.write(Object::begin(&mut out));
            let read: Alike = serde_json::from_slice(&out).unwrap();
            assert_eq!((&*read.names, &*unfolded(&read.names)), (kept, places));
        }
        assert_eq!(unfolded(&[-1, 0, i64::MIN]).len(), 2 + MAX_CANDIDATES, "whatever stands there");
    }

    #[test]
    fn waves_that_rise_one_by_one_make_one_group() {
        let with = |waves: &[Option<usize>]| -> (Vec<usize>, Vec<Option<usize>>) {
            let candidates: Vec<_> = waves
                .iter()
                .map(|wave| RecordedCandidate { wave: *wave, ..candidate("a", 1, None) })
                .collect();
            let mut names = Names::default();
            let groups = read(&written(&candidates, &mut names)).candidates;
            let sizes = groups.iter().map(|group| unfolded(&group.names).len()).collect();
            (sizes, again(&candidates, &mut names).candidates.iter().map(|it| it.wave).collect())
        };
        let (none, waves) = (None, |waves: &[usize]| waves.iter().copied().map(Some).collect::<Vec<_>>());
        for (asked, sizes) in [
            (waves(&[1, 2, 3, 4]), &[4][..]),
            (waves(&[1, 1, 1, 2, 3, 4]), &[3, 3]),
            (waves(&[1, 2, 2, 2]), &[2, 2]),
            (waves(&[1, 3, 4, 4]), &[1, 2, 1]),
            (waves(&[3, 2, 1]), &[1, 1, 1]),
            (vec![none, none, Some(1), none], &[2, 1, 1]),
            (vec![Some(usize::MAX), Some(usize::MAX)], &[2]),
        ] {
            assert_eq!(with(&asked), (sizes.to_vec(), asked.clone()));
        }
    }

    #[test]
    fn what_was_written_without_groups_that_rise_is_read() {
        let text = r#"{"via":"combo","strategy":"priority","seed":1,"candidates":[{"names":[],"name":{"model":"a"},"wave":2}],"decidedAt":5}"#;
        let read = told(serde_json::from_str(text).unwrap(), &HashMap::new()).unwrap();
        assert_eq!((&*read.candidates[0].model, read.candidates[0].wave), ("a", Some(2)));
    }

    #[test]
    fn no_more_candidates_are_kept_than_there_is_room_for() {
        let candidates = [candidate("a", 1, None); 500];
        let groups = read(&written(&candidates, &mut Names::default())).candidates;
        assert_eq!(groups.iter().map(|group| unfolded(&group.names).len()).sum::<usize>(), MAX_CANDIDATES);
    }

    #[test]
    fn names_without_room_on_the_page_stand_in_the_decision() {
        let mut names = Names::default();
        for number in 0..10_000 {
            let model = number.to_string();
            let _ = names.place(&RecordedCandidate { model: &model, ..candidate("", 1, None) });
        }
        let candidates = [candidate("5", 1, None), candidate("new", 1, None), candidate("6", 1, None)];
        let read = again(&candidates, &mut names);
        let models: Vec<&str> = read.candidates.iter().map(|it| &*it.model).collect();
        assert_eq!(models, ["5", "new", "6"]);
        assert_eq!(read.candidates[1].connection_id.as_deref(), Some("c1"));
        assert_eq!(read.candidates[1].cost_nano, Some(1));
    }
}
