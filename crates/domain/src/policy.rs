//! What the operator forbids, limits or prefers: policies, compiled, and their verdict on a request. Pure.

use std::sync::Arc;

use crate::entity::{Policy, PolicyKind, PolicyMode};
use crate::hours::Hours;
use crate::pattern::Pattern;

/// Billionths of a US dollar.
const NANO: f64 = 1e9;

/// Every policy that counts, the first to be asked first.
#[derive(Debug, Default)]
pub struct Policies(Vec<Rule>);

/// A policy, compiled.
#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    kind: PolicyKind,
    mode: PolicyMode,
    model: Option<Pattern>,
    api_key: Option<String>,
    provider: Option<String>,
    endpoint: Option<String>,
    hours: Option<Hours>,
    prefer: Vec<String>,
    block: Vec<Pattern>,
    max_tokens: Option<u64>,
    max_cost_nano: Option<i64>,
    rewrite: Option<String>,
    tags: Vec<String>,
}

/// Why a policy makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not two times of a day.
    #[error("`{0}` is not a time of day such as `08:00-18:00`")]
    Hours(String),
    /// Not an amount.
    #[error("max_cost_usd must be a number, zero or more")]
    Cost,
    /// Nothing that its type is for.
    #[error("a policy of the type `{0}` needs at least one of: {1}")]
    NoAction(&'static str, &'static str),
}

/// What is asked about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The names of the model: as requested, and as `provider/model` where a target is known.
    pub names: &'a [&'a str],
    /// The names of the provider that would be asked: its id and its prefix.
    pub providers: &'a [&'a str],
    /// The client's key.
    pub api_key: Option<&'a str>,
    /// `chat`, `messages`, …
    pub endpoint: &'a str,
    /// What the request would cost, in billionths of a US dollar; `None` = unknown, which no limit forbids.
    pub cost_nano: Option<i64>,
    /// When.
    pub now_ms: i64,
}

/// What the policies say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is refused; `None` = it is not.
    pub denial: Option<Denial>,
    /// Providers to ask first, in order.
    pub preferred_providers: Vec<String>,
    /// The names of the policies that applied, in order.
    pub applied: Vec<Arc<str>>,
    /// Most tokens of answer.
    pub max_tokens: Option<u64>,
    /// The model that is asked for instead.
    pub rewrite_model: Option<String>,
    /// Labels that an account must have.
    pub required_tags: Vec<String>,
    /// What policies that only observe would have done, in order.
    pub observed: Vec<Observed>,
}

/// What a policy that only observes would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its name.
    pub policy: Arc<str>,
    /// In words: `would have been denied: …`.
    pub effect: String,
}

/// Most that is told of one request: a policy says something else of each target of a combo.
pub const MAX_OBSERVED: usize = 100;

impl Observed {
    /// Those that are not among `known` yet go to its end, as long as there is [room](MAX_OBSERVED).
    pub fn add_new(known: &mut Vec<Self>, new: &[Self]) {
        for one in new {
            if known.len() >= MAX_OBSERVED {
                return;
            }
            if !known.contains(one) {
                known.push(one.clone());
            }
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// In words.
    pub reason: String,
    /// What was being judged.
    pub phase: Phase,
}

/// What a refusal was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A model that is blocked.
    Access,
    /// A price that is too high.
    Budget,
}

impl Verdict {
    /// Whether the request may be served.
    pub const fn is_allowed(&self) -> bool {
        self.denial.is_none()
    }

    /// What it would do to a request, in words.
    fn effect(&self) -> String {
        if let Some(denial) = &self.denial {
            return format!("would have been denied: {}", denial.reason);
        }
        let mut effects = Vec::new();
        if let Some(model) = &self.rewrite_model {
            effects.push(format!("`{model}` would have been asked instead"));
        }
        if !self.preferred_providers.is_empty() {
            effects.push(format!("would have gone first to {}", self.preferred_providers.join(", ")));
        }
        if !self.required_tags.is_empty() {
            effects.push(format!("would have wanted an account with {}", self.required_tags.join(", ")));
        }
        if let Some(most) = self.max_tokens {
            effects.push(format!("its answer would have been limited to {most} tokens"));
        }
        effects.join("; ")
    }

    /// How far judging got: `access`, `budget`, or `passed`.
    pub fn phase(&self) -> &'static str {
        match self.denial.as_ref().map(|denial| denial.phase) {
            None => "passed",
            Some(Phase::Access) => "access",
            Some(Phase::Budget) => "budget",
        }
    }
}

/// Checks a policy as it is before it is saved.
pub fn check(policy: &Policy) -> Result<(), PolicyError> {
    Rule::new(policy).map(|_| ())
}

impl Policies {
    /// Compiles those that count. The others are named with what is wrong with them.
    pub fn new<'a>(
        policies: impl IntoIterator<Item = &'a Policy>,
        problem: &mut dyn FnMut(&str, String),
    ) -> Self {
        let mut rows: Vec<&Policy> = policies.into_iter().filter(|policy| policy.enabled).collect();
        rows.sort_by(|a, b| (a.priority, a.created_at, &a.id).cmp(&(b.priority, b.created_at, &b.id)));
        let mut rules = Vec::with_capacity(rows.len());
        for row in rows {
            match Rule::new(row) {
                Ok(rule) => rules.push(rule),
                Err(error) => problem(&row.id, error.to_string()),
            }
        }
        Self(rules)
    }

    /// Whether there are none, as for most operators.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any of them asks what a request costs.
    pub fn ask_for_cost(&self) -> bool {
        self.0.iter().any(|rule| rule.max_cost_nano.is_some())
    }

    /// Judges a request. The first refusal ends it; of limits the lowest counts, of rewrites the first.
    pub fn judge(&self, asked: &Asked<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        for rule in self.0.iter().filter(|rule| rule.applies(asked)) {
            if rule.mode == PolicyMode::Observe {
                verdict.observed.extend(rule.observe(asked));
                continue;
            }
            if rule.act(asked, &mut verdict) {
                verdict.applied.push(rule.name.clone());
            }
            if verdict.denial.is_some() {
                break;
            }
        }
        verdict
    }
}

impl Rule {
    fn new(policy: &Policy) -> Result<Self, PolicyError> {
        let (conditions, actions) = (&policy.conditions, &policy.actions);
        let hours = conditions.hour_range.as_deref();
        let hours = hours.map(|text| Hours::parse(text).ok_or_else(|| PolicyError::Hours(text.to_owned())));
        let max_cost_nano = actions.max_cost_usd.map(|usd| match usd * NANO {
            nano if nano.is_finite() && nano >= 0.0 =>
            {
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "a float too large becomes the largest integer"
                )]
                Ok(nano.round() as i64)
            }
            _ => Err(PolicyError::Cost),
        });
        let rule = Self {
            name: policy.name.as_str().into(),
            kind: policy.kind,
            mode: policy.mode,
            model: conditions.model_pattern.as_deref().map(Pattern::new),
            api_key: conditions.api_key_id.clone(),
            provider: conditions.provider.clone(),
            endpoint: conditions.endpoint.clone(),
            hours: hours.transpose()?,
            prefer: actions.prefer_provider.clone(),
            block: actions.block_model.iter().map(|text| Pattern::new(text)).collect(),
            max_tokens: actions.max_tokens,
            max_cost_nano: max_cost_nano.transpose()?,
            rewrite: actions.rewrite_model.clone(),
            tags: actions.require_tags.clone(),
        };
        rule.has_purpose()?;
        Ok(rule)
    }

    /// A policy does what its type is for. What else it says counts too.
    fn has_purpose(&self) -> Result<(), PolicyError> {
        let routes = !self.prefer.is_empty() || !self.tags.is_empty() || self.rewrite.is_some();
        let (is_there, needed) = match self.kind {
            PolicyKind::Routing => (routes, "prefer_provider, require_tags, rewrite_model"),
            PolicyKind::Access => {
                (!self.block.is_empty() || !self.tags.is_empty(), "block_model, require_tags")
            }
            PolicyKind::Budget => {
                (self.max_tokens.is_some() || self.max_cost_nano.is_some(), "max_tokens, max_cost_usd")
            }
        };
        if is_there { Ok(()) } else { Err(PolicyError::NoAction(self.kind.as_str(), needed)) }
    }

    fn applies(&self, asked: &Asked<'_>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        self.model.as_ref().is_none_or(|model| asked.names.iter().any(|name| model.matches(name)))
            && is(&self.api_key, asked.api_key)
            && is(&self.endpoint, Some(asked.endpoint))
            && self.provider.as_deref().is_none_or(|wanted| {
                asked.providers.iter().any(|provider| provider.eq_ignore_ascii_case(wanted))
            })
            && self.hours.is_none_or(|hours| hours.covers_utc(asked.now_ms))
    }

    /// What it would have done on its own.
    fn observe(&self, asked: &Asked<'_>) -> Option<Observed> {
        let mut alone = Verdict::default();
        self.act(asked, &mut alone).then(|| Observed { policy: self.name.clone(), effect: alone.effect() })
    }

    /// Whether it changed anything.
    fn act(&self, asked: &Asked<'_>, verdict: &mut Verdict) -> bool {
        let mut acted = !self.prefer.is_empty() || !self.tags.is_empty();
        for provider in &self.prefer {
            if !verdict.preferred_providers.contains(provider) {
                verdict.preferred_providers.push(provider.clone());
            }
        }
        for tag in &self.tags {
            if !verdict.required_tags.contains(tag) {
                verdict.required_tags.push(tag.clone());
            }
        }
        if let Some(model) = &self.rewrite {
            verdict.rewrite_model.get_or_insert_with(|| model.clone());
            acted = true;
        }
        if let Some(most) = self.max_tokens {
            verdict.max_tokens = Some(verdict.max_tokens.map_or(most, |other| other.min(most)));
            acted = true;
        }
        let blocked = asked.names.iter().find(|name| self.block.iter().any(|block| block.matches(name)));
        if let Some(blocked) = blocked {
            let reason = format!("Model \"{blocked}\" blocked by policy \"{}\"", self.name);
            verdict.denial = Some(Denial { reason, phase: Phase::Access });
            return true;
        }
        if let (Some(most), Some(cost)) = (self.max_cost_nano, asked.cost_nano)
            && cost > most
        {
            let usd = |nano: i64| {
                #[allow(clippy::cast_precision_loss, reason = "for people")]
                let usd = nano as f64 / NANO;
                format!("${usd:.4}")
            };
            let reason = format!(
                "The request would cost about {}, policy \"{}\" allows {}; ask for a shorter answer or a cheaper model",
                usd(cost),
                self.name,
                usd(most)
            );
            verdict.denial = Some(Denial { reason, phase: Phase::Budget });
            return true;
        }
        acted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::{PolicyActions, PolicyConditions};

    fn policy(name: &str, priority: i64, conditions: PolicyConditions, actions: PolicyActions) -> Policy {
        let kind = if !actions.block_model.is_empty() {
            PolicyKind::Access
        } else if actions.max_tokens.is_some() || actions.max_cost_usd.is_some() {
            PolicyKind::Budget
        } else {
            PolicyKind::Routing
        };
        Policy {
            id: name.into(),
            name: name.into(),
            kind,
            enabled: true,
            mode: PolicyMode::Enforce,
            priority,
            conditions,
            actions,
            created_at: 0,
            updated_at: 0,
        }
    }

    fn compiled(policies: &[Policy]) -> Policies {
        Policies::new(policies, &mut |id, problem| panic!("{id}: {problem}"))
    }

    const ASKED: Asked<'static> = Asked {
        names: &["fast", "openai/gpt-5.6"],
        providers: &["openai"],
        api_key: Some("k1"),
        endpoint: "chat",
        cost_nano: Some(20_000_000),
        // 1970-01-01, noon.
        now_ms: 12 * 3_600_000,
    };

    #[test]
    fn all_conditions_must_hold() {
        let text = |text: &str| Some(text.to_owned());
        for (conditions, applies) in [
            (PolicyConditions::default(), true),
            (PolicyConditions { model_pattern: text("GPT-*"), ..Default::default() }, false),
            (PolicyConditions { model_pattern: text("*/GPT-*"), ..Default::default() }, true),
            (PolicyConditions { model_pattern: text("fast"), ..Default::default() }, true),
            (PolicyConditions { api_key_id: text("k1"), ..Default::default() }, true),
            (PolicyConditions { api_key_id: text("k2"), ..Default::default() }, false),
            (PolicyConditions { provider: text("OpenAI"), ..Default::default() }, true),
            (PolicyConditions { provider: text("azure"), ..Default::default() }, false),
            (PolicyConditions { endpoint: text("chat"), ..Default::default() }, true),
            (PolicyConditions { endpoint: text("messages"), ..Default::default() }, false),
            (PolicyConditions { hour_range: text("08:00-18:00"), ..Default::default() }, true),
            (PolicyConditions { hour_range: text("18:00-08:00"), ..Default::default() }, false),
            (
                PolicyConditions { endpoint: text("chat"), api_key_id: text("k2"), ..Default::default() },
                false,
            ),
        ] {
            let said = format!("{conditions:?}");
            let actions = PolicyActions { max_tokens: Some(7), ..Default::default() };
            let verdict = compiled(&[policy("p", 1, conditions, actions)]).judge(&ASKED);
            assert_eq!(verdict.max_tokens.is_some(), applies, "{said}");
            assert_eq!(verdict.applied.len(), usize::from(applies), "{said}");
        }
    }

    #[test]
    fn the_first_block_ends_it_and_limits_add_up() {
        let all = PolicyConditions::default;
        let block = |pattern: &str| PolicyActions { block_model: vec![pattern.into()], ..Default::default() };
        let policies = [
            policy("later", 20, all(), block("openai/*")),
            policy("first", 10, all(), block("openai/gpt-5*")),
            policy("wide", 1, all(), PolicyActions { max_tokens: Some(100), ..Default::default() }),
            policy(
                "narrow",
                2,
                all(),
                PolicyActions {
                    max_tokens: Some(50),
                    prefer_provider: vec!["a".into(), "b".into()],
                    require_tags: vec!["eu".into()],
                    rewrite_model: Some("x".into()),
                    ..Default::default()
                },
            ),
            policy(
                "more",
                3,
                all(),
                PolicyActions {
                    prefer_provider: vec!["b".into(), "c".into()],
                    rewrite_model: Some("y".into()),
                    ..Default::default()
                },
            ),
            policy("never", 30, all(), PolicyActions { max_tokens: Some(1), ..Default::default() }),
        ];
        let verdict = compiled(&policies).judge(&ASKED);
        let denial = verdict.denial.as_ref().unwrap();
        assert_eq!(denial.reason, "Model \"openai/gpt-5.6\" blocked by policy \"first\"");
        assert_eq!(verdict.phase(), "access");
        assert_eq!(
            verdict.applied.iter().map(|name| &**name).collect::<Vec<_>>(),
            ["wide", "narrow", "more", "first"]
        );
        assert_eq!(verdict.preferred_providers, ["a", "b", "c"]);
        assert_eq!((verdict.max_tokens, verdict.rewrite_model.as_deref()), (Some(50), Some("x")));
        assert_eq!(verdict.required_tags, ["eu"]);
        let other = compiled(&policies).judge(&Asked { names: &["up/m"], ..ASKED });
        assert!(other.is_allowed() && other.max_tokens == Some(1) && other.phase() == "passed");
    }

    #[test]
    fn who_only_observes_says_what_would_be_and_does_nothing() {
        let all = PolicyConditions::default;
        let observes = |name: &str, priority, actions| Policy {
            mode: PolicyMode::Observe,
            ..policy(name, priority, all(), actions)
        };
        let block = || PolicyActions { block_model: vec!["openai/*".into()], ..Default::default() };
        let many = PolicyActions {
            prefer_provider: vec!["a".into(), "b".into()],
            require_tags: vec!["eu".into()],
            rewrite_model: Some("x".into()),
            max_tokens: Some(50),
            ..Default::default()
        };
        let dear = PolicyActions { max_cost_usd: Some(0.01), ..Default::default() };
        let other = PolicyActions { block_model: vec!["never".into()], ..Default::default() };
        let policies = [
            observes("block", 1, block()),
            observes("many", 2, many),
            observes("dear", 3, dear),
            observes("other", 4, other),
            policy("wide", 5, all(), PolicyActions { max_tokens: Some(100), ..Default::default() }),
        ];
        let verdict = compiled(&policies).judge(&ASKED);
        let told: Vec<_> = verdict.observed.iter().map(|it| (&*it.policy, it.effect.as_str())).collect();
        assert_eq!(
            told[..2],
            [
                ("block", "would have been denied: Model \"openai/gpt-5.6\" blocked by policy \"block\""),
                (
                    "many",
                    "`x` would have been asked instead; would have gone first to a, b; would have wanted an account \
                     with eu; its answer would have been limited to 50 tokens"
                ),
            ]
        );
        assert!(told[2].0 == "dear" && told[2].1.contains("policy \"dear\" allows $0.0100"), "{told:?}");
        assert_eq!(told.len(), 3, "one that would have done nothing is not told of");
        let wide = Verdict { max_tokens: Some(100), applied: vec!["wide".into()], ..Verdict::default() };
        assert_eq!(Verdict { observed: Vec::new(), ..verdict }, wide, "nothing else is different for them");
        // A refusal in force ends it for those behind.
        let policies = [policy("first", 1, all(), block()), observes("behind", 2, block())];
        let verdict = compiled(&policies).judge(&ASKED);
        assert!(!verdict.is_allowed() && verdict.observed.is_empty());
    }

    #[test]
    fn not_more_is_told_of_a_request_than_people_read() {
        let one = |number: usize| Observed { policy: "p".into(), effect: number.to_string() };
        let mut known = vec![one(0)];
        Observed::add_new(&mut known, &(0..2 * MAX_OBSERVED).map(one).collect::<Vec<_>>());
        assert_eq!(known, (0..MAX_OBSERVED).map(one).collect::<Vec<_>>());
    }

    #[test]
    fn dear_requests_are_refused_where_the_price_is_known() {
        for (limit, cost, allowed) in [
            (0.02, Some(20_000_000), true),
            (0.0199, Some(20_000_000), false),
            (0.0, Some(0), true),
            (0.0, Some(1), false),
            (0.0, None, true),
        ] {
            let actions = PolicyActions { max_cost_usd: Some(limit), ..Default::default() };
            let policies = compiled(&[policy("cheap", 1, PolicyConditions::default(), actions)]);
            assert!(policies.ask_for_cost());
            let verdict = policies.judge(&Asked { cost_nano: cost, ..ASKED });
            assert_eq!(verdict.is_allowed(), allowed, "{limit} {cost:?}");
            assert_eq!(verdict.phase(), if allowed { "passed" } else { "budget" });
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let hours = PolicyConditions { hour_range: Some("8-18".into()), ..Default::default() };
        let clamp = PolicyActions { max_tokens: Some(1), ..Default::default() };
        let idle =
            |kind| Policy { kind, ..policy("p", 1, PolicyConditions::default(), PolicyActions::default()) };
        let cost = |usd| {
            let actions = PolicyActions { max_cost_usd: Some(usd), ..Default::default() };
            check(&policy("p", 1, PolicyConditions::default(), actions))
        };
        assert_eq!(check(&policy("p", 1, hours, clamp)), Err(PolicyError::Hours("8-18".into())));
        assert_eq!(cost(-1.0), Err(PolicyError::Cost));
        assert_eq!(cost(f64::INFINITY), Err(PolicyError::Cost));
        for kind in [PolicyKind::Routing, PolicyKind::Access, PolicyKind::Budget] {
            assert!(matches!(check(&idle(kind)), Err(PolicyError::NoAction(..))));
        }
        let mut off = idle(PolicyKind::Access);
        off.enabled = false;
        assert!(compiled(&[off]).is_empty());
    }
}
