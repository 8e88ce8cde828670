//! What a plan depends on: which of a request's facts a combo has to know, and what all its steps can do.

use std::sync::Arc;

use super::{ComboState, Condition, RequestFacts, StepState};
use crate::price::PlainRates;
use crate::resolve::Target;
use crate::snapshot::Snapshot;

/// What a combo's plan depends on.
pub(crate) struct Needs {
    /// What is in the request's body: tools, images, the form of the answer.
    content: bool,
    /// The beginning of the prompt.
    prefix: bool,
    /// What all steps can do, where each leads to a model whatever the request; `None` where each has to be looked at.
    pub(super) common: Option<Arc<Common>>,
    /// 64 bits that are the same for all requests.
    pub(super) seed: u64,
}

/// What all steps of a combo can do, and where they lead.
pub(super) struct Common {
    tools: bool,
    vision: bool,
    json_schema: bool,
    /// The smallest context.
    window: u64,
    /// Where each leads.
    pub(super) targets: Box<[Arc<Target>]>,
    /// What each costs, where all have plain rates.
    pub(super) rates: Option<Box<[PlainRates]>>,
}

/// Found out once: the snapshot is the one that the combo belongs to.
pub(super) fn needs<'a>(snapshot: &Snapshot, combo: &'a ComboState) -> &'a Needs {
    combo.needs.get_or_init(|| {
        let (mut content, mut prefix) = (combo.strategy.manner().is_joint(), false);
        combo.visit(snapshot, &mut |within| {
            content = content || asks_for_content(snapshot, within);
            prefix = prefix || within.strategy.wants().affinity;
        });
        Needs {
            content,
            prefix,
            common: common(snapshot, combo).map(Arc::new),
            seed: combo.id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }),
        }
    })
}

fn common(snapshot: &Snapshot, combo: &ComboState) -> Option<Common> {
    if combo.auto.is_some() {
        return None;
    }
    let fixed = |step: &StepState| {
        let target = step.target(snapshot)?.as_ref().ok().filter(|_| step.condition.is_none())?;
        Some(target.clone())
    };
    let targets = combo.steps.iter().map(fixed).collect::<Option<Box<[Arc<Target>]>>>()?;
    let rates = targets.iter().map(|target| PlainRates::of(&target.quote(snapshot)?.price)).collect();
    let all = Common { tools: true, vision: true, json_schema: true, window: u64::MAX, targets, rates };
    Some(combo.steps.iter().zip(all.targets.clone()).fold(all, |common, (step, target)| {
        let caps = &step.traits(snapshot, &target).caps;
        Common {
            tools: common.tools && caps.tools,
            vision: common.vision && caps.vision,
            json_schema: common.json_schema && caps.json_schema,
            window: common.window.min(caps.context_window.unwrap_or(u64::MAX)),
            ..common
        }
    }))
}

impl RequestFacts {
    /// Tokens that have to fit a context.
    pub(super) fn needed_tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.max_output.unwrap_or(0))
    }

    /// Whether it asks for nothing that any step cannot do.
    pub(super) fn suits(&self, common: &Common) -> bool {
        (common.tools || !self.has_tools)
            && (common.vision || !self.has_images)
            && (common.json_schema || !self.wants_json_schema)
            && self.needed_tokens() <= common.window
    }
}

/// Whether a plan depends on what is in the request's body: tools, images, the form of the answer. The snapshot is the one that
/// the combo belongs to.
pub fn needs_content(snapshot: &Snapshot, combo: &ComboState) -> bool {
    needs(snapshot, combo).content
}

/// Whether that is so for the combo's own steps.
fn asks_for_content(snapshot: &Snapshot, combo: &ComboState) -> bool {
    combo.auto.is_some()
        || combo.steps.iter().any(|step| {
            let asks = step.condition.as_ref().is_some_and(Condition::needs_content);
            let lacks = |target: &Arc<Target>| {
                let caps = &step.traits(snapshot, target).caps;
                !(caps.tools && caps.vision && caps.json_schema)
            };
            asks || matches!(step.target(snapshot), Some(Ok(target)) if lacks(target))
        })
}

/// Whether a plan depends on the beginning of the prompt, though on nothing else in the request's body.
pub fn needs_prefix(snapshot: &Snapshot, combo: &ComboState) -> bool {
    needs(snapshot, combo).prefix
}
