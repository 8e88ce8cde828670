//! What is kept of a decision: candidates that differ in nothing but their names stand together, and names are places on a
//! page of names.

use std::collections::{BTreeMap, HashMap};

use omniroute_domain::routing::Score;
use omniroute_engine::decision::Decision;
use omniroute_engine::ports::RequestRow;
use omniroute_engine::preview::{PreviewedCandidate, Skip};
use serde::{Deserialize, Serialize};

use super::names::{Name, Names};
use super::{LoggedCandidate, LoggedDecision};
use crate::error::StoreError;

/// Most candidates of one decision that are kept.
const MAX_CANDIDATES: usize = 160;
/// Most of them that are kept with their factors.
const MAX_SCORED: usize = 24;

/// Candidates in a row of whom the same is to be said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Alike {
    /// The places of their names.
    names: Vec<i64>,
    /// The name of the only one, where the page had no room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Box<Own>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    #[serde(default, rename = "cost", skip_serializing_if = "Option::is_none")]
    cost_nano: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wave: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    factors: BTreeMap<String, f64>,
}

/// A name that stands on no page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Own {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<String>,
    pub(super) model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dialect: Option<String>,
}

/// What is kept of the decision of a row.
pub(crate) fn kept(row: &RequestRow, decision: &Decision, names: &mut Names) -> LoggedDecision<Alike> {
    LoggedDecision {
        via: decision.via.to_owned(),
        combo: row.combo.as_deref().map(str::to_owned),
        strategy: decision.strategy.to_owned(),
        seed: decision.seed,
        turn: decision.combo.as_ref().map(|_| decision.turn),
        task: decision.task.map(|task| task.as_str().to_owned()),
        policies: decision.policies.iter().map(ToString::to_string).collect(),
        budget: decision.budget.clone(),
        handoff_from: decision.handoff.clone(),
        candidates: together(&decision.candidates(row.client_dialect), names),
        decided_at: decision.decided_at,
    }
}

fn together(candidates: &[PreviewedCandidate], names: &mut Names) -> Vec<Alike> {
    let mut groups: Vec<Alike> = Vec::new();
    let mut before: Option<&PreviewedCandidate> = None;
    for (number, candidate) in candidates.iter().take(MAX_CANDIDATES).enumerate() {
        let place = names.place(candidate);
        let is_alike = number != MAX_SCORED && before.is_some_and(|before| alike(before, candidate));
        let group = groups.last_mut().filter(|group| is_alike && group.name.is_none());
        match (group, place) {
            (Some(group), Ok(place)) => group.names.push(place),
            (_, place) => groups.push(Alike::of(candidate, place, number < MAX_SCORED)),
        }
        before = Some(candidate);
    }
    groups
}

/// Whether the same is to be said of both.
fn alike(one: &PreviewedCandidate, other: &PreviewedCandidate) -> bool {
    let PreviewedCandidate { provider: _, model: _, connection: _, dialect: _, skip, cost_nano, score, wave } =
        one;
    *skip == other.skip && *cost_nano == other.cost_nano && *score == other.score && *wave == other.wave
}

impl Alike {
    fn of(candidate: &PreviewedCandidate, place: Result<i64, Name>, with_factors: bool) -> Self {
        let factors = |score: Score| {
            score.factors().map(|(factor, value)| (factor.name().to_owned(), rounded(value))).collect()
        };
        let skip = candidate.skip.as_ref();
        let (names, name) = match place {
            Ok(place) => (vec![place], None),
            Err(name) => (Vec::new(), Some(Box::new(Own::of(&name)))),
        };
        Self {
            names,
            name,
            rule: skip.map(|skip| skip.rule.to_owned()),
            reason: skip.map(|skip| skip.reason.clone()),
            until: skip.and_then(|Skip { until, .. }| *until),
            cost_nano: candidate.cost_nano,
            wave: candidate.wave,
            score: candidate.score.map(|score| rounded(score.total)),
            factors: candidate.score.filter(|_| with_factors).map(factors).unwrap_or_default(),
        }
    }
}

impl Own {
    fn of(name: &Name) -> Self {
        Self {
            provider: name.provider.as_ref().map(ToString::to_string),
            model: name.model.to_string(),
            connection: name.connection.as_ref().map(|(id, name)| (id.to_string(), name.to_string())),
            dialect: name.dialect.map(str::to_owned),
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
        let own = group.name.iter().map(|own| Ok((**own).clone()));
        let on_page = group.names.iter().map(|place| {
            let found = names.get(place).cloned();
            found.ok_or_else(|| StoreError::Damaged(format!("routing_names: place {place} is missing")))
        });
        for name in own.chain(on_page) {
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
                wave: group.wave,
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
    use super::*;

    fn candidate(model: &str, cost_nano: i64, rule: Option<&'static str>) -> PreviewedCandidate {
        let skip = rule.map(|rule| Skip { rule, reason: "because".to_owned(), until: Some(7) });
        PreviewedCandidate {
            provider: Some("openai".into()),
            model: model.into(),
            connection: Some((format!("id-{model}").as_str().into(), "work".into())),
            dialect: Some("openai"),
            skip,
            cost_nano: Some(cost_nano),
            score: None,
            wave: Some(1),
        }
    }

    fn decision(candidates: Vec<Alike>) -> LoggedDecision<Alike> {
        LoggedDecision {
            via: "combo".to_owned(),
            combo: None,
            strategy: "priority".to_owned(),
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

        let written: HashMap<i64, Own> =
            names.unwritten().iter().map(|(place, name)| (*place, Own::of(name))).collect();
        let text = serde_json::to_string(&decision(groups)).unwrap();
        let read = told(serde_json::from_str(&text).unwrap(), &written).unwrap();
        let back = read
            .candidates
            .iter()
            .map(|it| (&*it.model, it.connection_id.as_deref(), it.cost_nano, it.rule.as_deref()));
        assert_eq!(
            back.collect::<Vec<_>>(),
            [
                ("a", Some("id-a"), Some(1), None),
                ("b", Some("id-b"), Some(1), None),
                ("c", Some("id-c"), Some(2), None),
                ("d", Some("id-d"), Some(2), Some("cooldown")),
                ("a", Some("id-a"), Some(1), None),
            ]
        );
        assert_eq!(
            (read.candidates[3].reason.as_deref(), read.candidates[3].until),
            (Some("because"), Some(7))
        );

        let lost = told(serde_json::from_str(&text).unwrap(), &HashMap::new());
        assert!(lost.unwrap_err().to_string().contains("place 0 is missing"));
    }

    #[test]
    fn no_more_candidates_are_kept_than_there_is_room_for() {
        let candidates: Vec<_> = (0..500).map(|number| candidate(&number.to_string(), 1, None)).collect();
        let groups = together(&candidates, &mut Names::default());
        assert_eq!(groups.iter().map(|group| group.names.len()).sum::<usize>(), MAX_CANDIDATES);
    }

    #[test]
    fn names_without_room_on_the_page_stand_in_the_decision() {
        let mut names = Names::default();
        for number in 0..10_000 {
            let _ = names.place(&candidate(&number.to_string(), 1, None));
        }
        let candidates = [candidate("5", 1, None), candidate("new", 1, None), candidate("6", 1, None)];
        let text = serde_json::to_string(&decision(together(&candidates, &mut names))).unwrap();
        let written: HashMap<i64, Own> =
            names.unwritten().iter().map(|(place, name)| (*place, Own::of(name))).collect();
        let read = told(serde_json::from_str(&text).unwrap(), &written).unwrap();
        let models: Vec<&str> = read.candidates.iter().map(|it| &*it.model).collect();
        assert_eq!(models, ["5", "new", "6"]);
        assert_eq!(read.candidates[1].connection_id.as_deref(), Some("id-new"));
        assert_eq!(read.candidates[1].cost_nano, Some(1));
    }
}
