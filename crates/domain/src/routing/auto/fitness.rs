//! What families of models are good at: `fitness.json`, read once.

use std::sync::LazyLock;

use serde::Deserialize;

use super::{Task, Tier};
use crate::pattern::Pattern;

/// What a family of models is good at, each between 0 and 1, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitness {
    code: f32,
    reasoning: f32,
    simple: f32,
    medium: f32,
    vision: f32,
    /// How large its models are; absent = by their price.
    #[serde(default)]
    pub tier: Option<Tier>,
}

/// A family that is not in the table.
impl Default for Fitness {
    fn default() -> Self {
        Self { code: 0.5, reasoning: 0.5, simple: 0.5, medium: 0.5, vision: 0.5, tier: None }
    }
}

impl Fitness {
    /// How good it is at a task.
    pub fn at(&self, task: Task) -> f64 {
        f64::from(match task {
            Task::Code => self.code,
            Task::Reasoning => self.reasoning,
            Task::Simple => self.simple,
            Task::Medium => self.medium,
            Task::Vision => self.vision,
        })
    }
}

#[derive(Deserialize)]
struct Row {
    family: String,
    fitness: Fitness,
}

const TABLE: &str = include_str!("fitness.json");

// The file is a part of the program, and a test reads it.
static FAMILIES: LazyLock<Vec<(Pattern, Fitness)>> = LazyLock::new(|| {
    let rows: Vec<Row> = serde_json::from_str(TABLE).unwrap_or_default();
    rows.into_iter().map(|row| (Pattern::new(&row.family), row.fitness)).collect()
});

/// What a model is good at, by the first family that its name belongs to. What stands before a slash is a vendor.
pub fn fitness_of(model: &str) -> Fitness {
    let name = model.rsplit('/').next().unwrap_or(model);
    FAMILIES.iter().find(|(family, _)| family.matches(name)).map_or_else(Fitness::default, |(_, fit)| *fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_within_bounds() {
        let rows: Vec<Row> = serde_json::from_str(TABLE).unwrap();
        assert!(rows.len() > 20 && rows.len() == FAMILIES.len());
        let mut seen = Vec::new();
        for row in &rows {
            assert!(!seen.contains(&&row.family), "{} twice", row.family);
            seen.push(&row.family);
            for task in [Task::Code, Task::Reasoning, Task::Simple, Task::Medium, Task::Vision] {
                assert!((0.0..=1.0).contains(&row.fitness.at(task)), "{}", row.family);
            }
        }
    }

    #[test]
    fn no_family_hides_behind_an_earlier_one() {
        let rows: Vec<Row> = serde_json::from_str(TABLE).unwrap();
        for (at, row) in rows.iter().enumerate() {
            let example = row.family.replace('*', "");
            let found = rows.iter().position(|row| Pattern::new(&row.family).matches(&example)).unwrap();
            assert_eq!(found, at, "`{}` is never reached: `{}` is first", row.family, rows[found].family);
        }
    }

    #[test]
    fn models_belong_to_families() {
        let is_better = |one: &str, other: &str, task| fitness_of(one).at(task) > fitness_of(other).at(task);
        assert!(is_better("claude-opus-5-5", "claude-haiku-5-5", Task::Code));
        assert!(is_better("gpt-5.4-mini", "gpt-5.6", Task::Simple));
        assert!(is_better("accounts/fireworks/models/deepseek-r1", "unheard-of", Task::Reasoning));
        assert_eq!(fitness_of("openai/gpt-5.4-mini").tier, Some(Tier::Economy));
        assert_eq!(fitness_of("unheard-of"), Fitness::default());
    }
}
