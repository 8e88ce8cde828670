//! Rights of a client key beside its lists and limits: combos, times, choices made for it.

use omniroute_domain::entity::{AccessSchedule, KeyRights, RuntimeSettings};
use omniroute_domain::hours::Schedule;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cache_similarity::KeySimilarityView;
use super::transforms::ThinkingView;
use crate::validation::Problems;

/// As shown.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RightsView {
    allowed_combos: Vec<String>,
    access_schedule: Option<ScheduleView>,
    auto_resolve: bool,
    no_cache: bool,
    similarity: Option<KeySimilarityView>,
    /// The same as `similarity.threshold`.
    similarity_threshold: Option<f64>,
    thinking_budget: Option<ThinkingView>,
}

/// When a key may be used.
#[derive(Serialize, Deserialize, ToSchema, Clone)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScheduleView {
    /// Whether it counts.
    #[serde(default = "yes")]
    enabled: bool,
    /// Time of day: `08:00`.
    from: String,
    /// Time of day; over midnight too.
    until: String,
    /// 1 is Monday, 7 is Sunday; empty means every day.
    #[serde(default)]
    days: Vec<u8>,
    /// Time zone of both, `Europe/Berlin`; absent = UTC.
    #[serde(default)]
    tz: Option<String>,
}

const fn yes() -> bool {
    true
}

/// What is to be changed; absent members stay.
pub(crate) struct RightsPatch<'a> {
    pub(crate) allowed_combos: Option<&'a Vec<String>>,
    pub(crate) access_schedule: Option<&'a Option<ScheduleView>>,
    pub(crate) auto_resolve: Option<bool>,
    pub(crate) no_cache: Option<bool>,
    pub(crate) similarity: Option<Option<KeySimilarityView>>,
    pub(crate) thinking_budget: Option<Option<ThinkingView>>,
}

impl RightsPatch<'_> {
    /// Notes what is wrong.
    pub(crate) fn check(&self, problems: &mut Problems, settings: &RuntimeSettings) {
        if let Some(combos) = self.allowed_combos {
            problems.list("allowedCombos", combos, 500);
        }
        if let Some(Some(schedule)) = self.access_schedule
            && let Err(error) = Schedule::new(&AccessSchedule::from(schedule.clone()))
        {
            problems.add("accessSchedule", error.to_string());
        }
        if let Some(Some(similarity)) = &self.similarity {
            similarity.check(problems, &settings.semantic_cache_similarity);
        }
        if let Some(Some(thinking)) = self.thinking_budget {
            thinking.check("thinkingBudget", problems);
        }
    }

    /// Makes the changes.
    pub(crate) fn apply(&self, rights: &mut KeyRights) {
        if let Some(combos) = self.allowed_combos {
            rights.allowed_combos.clone_from(combos);
        }
        if let Some(schedule) = self.access_schedule {
            rights.access_schedule = schedule.clone().map(Into::into);
        }
        rights.auto_resolve = self.auto_resolve.unwrap_or(rights.auto_resolve);
        rights.no_cache = self.no_cache.unwrap_or(rights.no_cache);
        if let Some(similarity) = self.similarity {
            rights.similarity = similarity.map(Into::into);
        }
        if let Some(thinking) = self.thinking_budget {
            rights.thinking_budget = thinking.map(Into::into);
        }
    }
}

impl From<KeyRights> for RightsView {
    fn from(rights: KeyRights) -> Self {
        let similarity: Option<KeySimilarityView> = rights.similarity.map(Into::into);
        Self {
            allowed_combos: rights.allowed_combos,
            access_schedule: rights.access_schedule.map(Into::into),
            auto_resolve: rights.auto_resolve,
            no_cache: rights.no_cache,
            similarity,
            similarity_threshold: similarity.and_then(|view| view.threshold()),
            thinking_budget: rights.thinking_budget.map(Into::into),
        }
    }
}

impl From<AccessSchedule> for ScheduleView {
    fn from(schedule: AccessSchedule) -> Self {
        let AccessSchedule { enabled, from, until, days, tz } = schedule;
        Self { enabled, from, until, days, tz }
    }
}

impl From<ScheduleView> for AccessSchedule {
    fn from(schedule: ScheduleView) -> Self {
        let ScheduleView { enabled, from, until, days, tz } = schedule;
        Self { enabled, from, until, days, tz }
    }
}
