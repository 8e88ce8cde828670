//! Names of models that mean a combo: patterns in the operator's order, then the most specific.

use crate::alias::specificity;
use crate::entity::{ComboId, ModelComboMapping};
use crate::pattern::Pattern;

/// Every mapping that counts, the first to be asked first.
#[derive(Debug, Default)]
pub struct Mappings(Vec<(Pattern, ComboId)>);

impl Mappings {
    /// Compiles those that count.
    pub fn new<'a>(rows: impl IntoIterator<Item = &'a ModelComboMapping>) -> Self {
        let mut rows: Vec<&ModelComboMapping> = rows.into_iter().filter(|row| row.enabled).collect();
        // Equally specific ones keep the order of their making.
        rows.sort_by(|a, b| {
            let specific = specificity(&b.pattern).cmp(&specificity(&a.pattern));
            a.priority.cmp(&b.priority).then(specific).then((a.created_at, &a.id).cmp(&(b.created_at, &b.id)))
        });
        Self(rows.into_iter().map(|row| (Pattern::new(&row.pattern), row.combo_id.clone())).collect())
    }

    /// The combos that a name means, the best first; one that cannot be asked gives way to the next.
    pub fn combos<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ComboId> {
        self.0.iter().filter(move |(pattern, _)| pattern.matches(name)).map(|(_, combo)| combo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_comes_before_specificity() {
        let row = |pattern: &str, priority: i64, enabled: bool| ModelComboMapping {
            id: pattern.into(),
            pattern: pattern.into(),
            combo_id: pattern.into(),
            priority,
            enabled,
            description: None,
            created_at: 0,
            updated_at: 0,
        };
        let mappings = Mappings::new(&[
            row("*", 10, true),
            row("gpt-*", 10, true),
            row("gpt-5*", 10, true),
            row("gpt-5-mini", 10, false),
            row("*-mini", 1, true),
        ]);
        for (name, expected) in [
            ("gpt-5-mini", Some("*-mini")),
            ("GPT-5.6", Some("gpt-5*")),
            ("gpt-4o", Some("gpt-*")),
            ("claude", Some("*")),
        ] {
            assert_eq!(mappings.combos(name).next().map(ComboId::as_str), expected, "{name}");
        }
        assert_eq!(Mappings::default().combos("x").next(), None);
    }
}
