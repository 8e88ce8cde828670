//! What is kept of a decision: candidates that differ in nothing but their names stand together, and names are places on a
//! page of names.

use std::collections::{BTreeMap, HashMap};

use omniroute_engine::decision::{Decision, RecordedCandidate};
use omniroute_engine::ports::RequestRow;
use serde::{Deserialize, Serialize};

use super::names::Names;
use super::{LoggedCandidate, LoggedDecision, nothing};
use crate::error::StoreError;

/// Most candidates of one decision that are kept.
const MAX_CANDIDATES: usize = 160;
/// Most of them that are kept with their factors.
const MAX_SCORED: usize = 24;

/// Candidates in a row of whom the same is to be said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Alike<S = String> {
    /// The places of their names.
    names: Vec<i64>,
    /// The name of the only one, where the page had no room for it.
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    name: Option<Own<S>>,
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    rule: Option<S>,
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    reason: Option<S>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    #[serde(default, rename = "cost", skip_serializing_if = "Option::is_none")]
    cost_nano: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wave: Option<usize>,
    /// Whether each after the first is asked a wave later than the one before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rising: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    factors: BTreeMap<String, f64>,
}

/// A name that stands on no page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Own<S = String> {
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<S>,
    pub(super) model: S,
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<(S, S)>,
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    pub(super) dialect: Option<S>,
}

/// What is kept of the decision of a row.
pub(crate) fn kept<'a>(
    row: &'a RequestRow,
    decision: &'a Decision,
    names: &mut Names,
) -> LoggedDecision<Alike<&'a str>, &'a str> {
    LoggedDecision {
        via: decision.via,
        combo: row.combo.as_deref(),
        strategy: decision.strategy,
        seed: decision.seed,
        turn: decision.combo.as_ref().map(|_| decision.turn),
        task: decision.task.map(|task| task.as_str()),
        policies: decision.policies.iter().map(|name| &**name).collect(),
        budget: decision.budget.as_deref(),
        handoff_from: decision.handoff.as_deref(),
        candidates: together(&decision.candidates(row.client_dialect), names),
        decided_at: decision.decided_at,
    }
}

fn together<'a>(candidates: &[RecordedCandidate<'a>], names: &mut Names) -> Vec<Alike<&'a str>> {
    let mut groups: Vec<Alike<&str>> = Vec::new();
    let mut before: Option<&RecordedCandidate<'_>> = None;
    for (number, candidate) in candidates.iter().take(MAX_CANDIDATES).enumerate() {
        let place = names.place(candidate);
        let is_alike = number != MAX_SCORED && before.is_some_and(|before| alike(before, candidate));
        let group = groups.last_mut().filter(|group| is_alike && group.name.is_none());
        let joined = place
            .zip(group)
            .and_then(|(place, group)| group.goes_on_with(candidate.wave).then(|| group.names.push(place)));
        if joined.is_none() {
            groups.push(Alike::of(candidate, place, number < MAX_SCORED));
        }
        before = Some(candidate);
    }
    groups
}

/// Whether the same is to be said of both, but for when they are asked.
fn alike(one: &RecordedCandidate<'_>, other: &RecordedCandidate<'_>) -> bool {
    let RecordedCandidate {
        provider: _,
        model: _,
        connection: _,
        dialect: _,
        wave: _,
        skip,
        cost_nano,
        score,
    } = one;
    *skip == other.skip && *cost_nano == other.cost_nano && *score == other.score
}

impl<S> Alike<S> {
    /// Whether the next candidate is asked when one of this group would be: all at once, or each a wave later. The second
    /// decides which.
    fn goes_on_with(&mut self, wave: Option<usize>) -> bool {
        let Some((first, wave)) = self.wave.zip(wave) else { return self.wave == wave };
        if self.names.len() == 1 {
            self.rising = wave.checked_sub(first) == Some(1);
        }
        wave == self.wave_of(self.names.len(), first)
    }

    /// The wave of one of the group.
    fn wave_of(&self, number: usize, first: usize) -> usize {
        if self.rising { first.saturating_add(number) } else { first }
    }
}

impl<'a> Alike<&'a str> {
    fn of(candidate: &RecordedCandidate<'a>, place: Option<i64>, with_factors: bool) -> Self {
        let RecordedCandidate { provider, model, connection, dialect, skip, cost_nano, score, wave } =
            *candidate;
        let own = || Own { provider, model, connection, dialect };
        let scored = score.filter(|_| with_factors);
        let factors = scored.into_iter().flat_map(|score| score.factors());
        Self {
            names: place.into_iter().collect(),
            name: place.is_none().then(own),
            rule: skip.map(|skip| skip.rule),
            reason: skip.map(|skip| skip.reason),
            until: skip.and_then(|skip| skip.until),
            cost_nano,
            wave,
            rising: false,
            score: score.map(|score| rounded(score.total)),
            factors: factors.map(|(factor, value)| (factor.name().to_owned(), rounded(value))).collect(),
        }
    }
}

/// The decision with its names.
pub(super) fn told(
    kept: LoggedDecision<Alike>,
    names: &HashMap<i64, Own>,
) -> Result<LoggedDecision, StoreError> {
    let mut candidates = Vec::new();
    for group in kept.candidates {
        let own = group.name.iter().map(|own| Ok(own.clone()));
        let on_page = group.names.iter().map(|place| {
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
                wave: group.wave.map(|first| group.wave_of(number, first)),
                score: group.score,
                factors: group.factors.clone(),
            });
        }
    }
    Ok(LoggedDecision {
        via: kept.via,
        combo: kept.combo,
        strategy: kept.strategy,
        seed: kept.seed,
        turn: kept.turn,
        task: kept.task,
        policies: kept.policies,
        budget: kept.budget,
        handoff_from: kept.handoff_from,
        candidates,
        decided_at: kept.decided_at,
    })
}

/// To six places behind the point: scores that differ by less are equal.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
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
        }
    }

    fn decision(candidates: Vec<Alike<&str>>) -> LoggedDecision<Alike<&str>, &str> {
        LoggedDecision {
            via: "combo",
            combo: None,
            strategy: "priority",
            seed: 1,
            turn: None,
            task: None,
            policies: Vec::new(),
            budget: None,
            handoff_from: None,
            candidates,
            decided_at: 5,
        }
    }

    /// Written, and read again.
    fn again(groups: Vec<Alike<&str>>, names: &Names) -> LoggedDecision {
        let own = |name: &super::super::Name| Own {
            provider: name.provider.as_deref().map(str::to_owned),
            model: name.model.to_string(),
            connection: name.connection.as_ref().map(|(id, name)| (id.to_string(), name.to_string())),
            dialect: name.dialect.map(str::to_owned),
        };
        let written = names.unwritten().iter().map(|(place, name)| (*place, own(name))).collect();
        let text = serde_json::to_string(&decision(groups)).unwrap();
        told(serde_json::from_str(&text).unwrap(), &written).unwrap()
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
        let groups = together(&candidates, &mut names);
        let places: Vec<&[i64]> = groups.iter().map(|group| &*group.names).collect();
        assert_eq!(places, [&[0, 1][..], &[2], &[3], &[0]]);

        let text = serde_json::to_string(&decision(together(&candidates, &mut names))).unwrap();
        let lost = told(serde_json::from_str(&text).unwrap(), &HashMap::new());
        assert!(lost.unwrap_err().to_string().contains("place 0 is missing"));

        let read = again(groups, &names);
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
    fn waves_that_rise_one_by_one_make_one_group() {
        let with = |waves: &[Option<usize>]| -> (Vec<usize>, Vec<Option<usize>>) {
            let candidates: Vec<_> = waves
                .iter()
                .map(|wave| RecordedCandidate { wave: *wave, ..candidate("a", 1, None) })
                .collect();
            let mut names = Names::default();
            let groups = together(&candidates, &mut names);
            let sizes = groups.iter().map(|group| group.names.len()).collect();
            (sizes, again(groups, &names).candidates.iter().map(|it| it.wave).collect())
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
        let groups = together(&candidates, &mut Names::default());
        assert_eq!(groups.iter().map(|group| group.names.len()).sum::<usize>(), MAX_CANDIDATES);
    }

    #[test]
    fn names_without_room_on_the_page_stand_in_the_decision() {
        let mut names = Names::default();
        for number in 0..10_000 {
            let model = number.to_string();
            let _ = names.place(&RecordedCandidate { model: &model, ..candidate("", 1, None) });
        }
        let candidates = [candidate("5", 1, None), candidate("new", 1, None), candidate("6", 1, None)];
        let read = again(together(&candidates, &mut names), &names);
        let models: Vec<&str> = read.candidates.iter().map(|it| &*it.model).collect();
        assert_eq!(models, ["5", "new", "6"]);
        assert_eq!(read.candidates[1].connection_id.as_deref(), Some("c1"));
        assert_eq!(read.candidates[1].cost_nano, Some(1));
    }
}
