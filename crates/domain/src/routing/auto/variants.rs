//! The names `auto` and `auto/…`, which every gateway has without a combo of that name.

use super::{Need, Task, Tier, Tuning, Weights};
use crate::entity::{ModePack, RouterStrategy};

/// Under this id the counts of the models are kept that all variants share.
pub const POOL: &str = "auto/*";

/// Whether a combo's id belongs to a variant.
pub fn is_virtual(id: &str) -> bool {
    id == "auto" || id.starts_with("auto/")
}

/// A variant without what may stand behind its colon.
struct Base {
    name: &'static str,
    task: Option<Task>,
    need: Option<Need>,
    pack: Option<ModePack>,
    exploration: Option<f64>,
    /// Absent = as the operator's defaults say.
    router: Option<RouterStrategy>,
    /// Whether a wish may stand behind it.
    takes_wish: bool,
}

const PLAIN: Base = Base {
    name: "auto",
    task: None,
    need: None,
    pack: None,
    exploration: None,
    router: None,
    takes_wish: false,
};

const BASES: [Base; 10] = [
    Base { router: Some(RouterStrategy::Lkgp), ..PLAIN },
    Base {
        name: "auto/coding",
        task: Some(Task::Code),
        pack: Some(ModePack::QualityFirst),
        takes_wish: true,
        ..PLAIN
    },
    Base { name: "auto/smart", pack: Some(ModePack::QualityFirst), exploration: Some(0.10), ..PLAIN },
    Base { name: "auto/fast", pack: Some(ModePack::ShipFast), ..PLAIN },
    Base { name: "auto/cheap", pack: Some(ModePack::CostSaver), ..PLAIN },
    Base { name: "auto/offline", pack: Some(ModePack::OfflineFriendly), ..PLAIN },
    Base {
        name: "auto/reasoning",
        task: Some(Task::Reasoning),
        need: Some(Need::Reasoning),
        pack: Some(ModePack::QualityFirst),
        takes_wish: true,
        ..PLAIN
    },
    Base {
        name: "auto/vision",
        task: Some(Task::Vision),
        need: Some(Need::Vision),
        takes_wish: true,
        ..PLAIN
    },
    Base { name: "auto/chat", task: Some(Task::Medium), takes_wish: true, ..PLAIN },
    Base {
        name: "auto/multimodal",
        task: Some(Task::Vision),
        need: Some(Need::Multimodal),
        takes_wish: true,
        ..PLAIN
    },
];

const WISHES: [&str; 5] = ["fast", "cheap", "reliable", "free", "pro"];

/// Every name, the shorter ones first.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = BASES.iter().map(|base| base.name.to_owned()).collect();
    let wishing = BASES.iter().filter(|base| base.takes_wish);
    names.extend(wishing.flat_map(|base| WISHES.map(|wish| format!("{}:{wish}", base.name))));
    names
}

/// How a variant decides, if there is one of this name. `base` is what holds for all of them.
pub fn tuning(name: &str, base: &Tuning) -> Option<Tuning> {
    let (plain, wish) = name.split_once(':').map_or((name, None), |(plain, wish)| (plain, Some(wish)));
    let variant = BASES.iter().find(|variant| variant.name == plain)?;
    let router = variant.router.unwrap_or(base.router);
    let mut tuning = Tuning { router, task: variant.task, ..base.clone() };
    tuning.weights = variant.pack.map_or(base.weights, Weights::of_pack);
    tuning.exploration = variant.exploration.unwrap_or(base.exploration);
    tuning.needs.extend(variant.need);
    let Some(wish) = wish else { return Some(tuning) };
    if !variant.takes_wish {
        return None;
    }
    let pack = match wish {
        "fast" => ModePack::ShipFast,
        "reliable" => ModePack::Reliable,
        "cheap" => {
            tuning.tier = Some(Tier::Economy);
            ModePack::CostSaver
        }
        "free" => {
            tuning.tier = Some(Tier::Economy);
            tuning.needs.push(Need::Free);
            ModePack::CostSaver
        }
        "pro" => {
            tuning.tier = Some(Tier::Premium);
            tuning.needs.push(Need::Premium);
            ModePack::QualityFirst
        }
        _ => return None,
    };
    tuning.weights = Weights::of_pack(pack);
    Some(tuning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_tuning_and_nothing_else_has() {
        let base = Tuning::default();
        let names = names();
        assert_eq!(names.len(), 35);
        for name in &names {
            assert!(tuning(name, &base).is_some() && is_virtual(name), "{name}");
        }
        for name in
            ["auto/", "auto/code", "auto/fast:cheap", "auto/coding:slow", "auto:fast", "automatic", POOL]
        {
            assert!(tuning(name, &base).is_none(), "{name}");
        }
    }

    #[test]
    fn variants_differ_as_they_say() {
        let base = Tuning::default();
        let of = |name: &str| tuning(name, &base).unwrap();
        assert_eq!(of("auto").router, RouterStrategy::Lkgp);
        assert_eq!(of("auto").weights, Weights::default());
        assert!((of("auto/smart").exploration - 0.10).abs() < f64::EPSILON);
        assert_eq!(of("auto/fast").weights, Weights::of_pack(ModePack::ShipFast));
        let vision = of("auto/vision:free");
        assert_eq!(vision.needs, [Need::Vision, Need::Free]);
        assert_eq!(
            (vision.task, vision.weights),
            (Some(Task::Vision), Weights::of_pack(ModePack::CostSaver))
        );
        assert_eq!(of("auto/coding:pro").tier, Some(Tier::Premium));
    }
}
