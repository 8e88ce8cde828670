//! Lists of candidates. Thousands of requests have the same ones in the same order, and differ in what they would cost there, in
//! their random bits and in their turn: a list stands on the page of names once, and decisions name its place.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Weak};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use omniroute_domain::combo::ComboState;
use omniroute_domain::snapshot::ProviderState;
use omniroute_engine::decision::{Decision, Pin};
use omniroute_engine::ports::RequestRow;
use omniroute_wire::json_out::{self, Object};
use serde::Deserialize;

use super::LoggedDecision;
use super::kept::{self, Alike, Groups};
use super::names::{Names, Page};
use crate::error::StoreError;

/// Most lists of a page, and most whose places are remembered.
pub(super) const MAX_LISTS: usize = 1_024;
/// Most shapes that are remembered for having been met.
const MAX_MET: usize = 4_096;

/// Most targets whose costs are kept: those of as many candidates, and one of whose accounts none is a candidate.
const MAX_TARGETS: usize = kept::MAX_CANDIDATES + 1;

/// Where lists stand that were met.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// By a hash of the decision's shape.
    known: HashMap<u64, Known, RandomState>,
    /// The hashes of shapes that were met.
    met: HashSet<u64, RandomState>,
    hasher: RandomState,
    /// The shape that is being looked for, and its hash.
    key: Vec<u8>,
    hash: u64,
}

#[derive(Debug)]
struct Known {
    key: Box<[u8]>,
    /// What the key speaks of is not replaced by something else at the same address.
    _pinned: Pinned,
    place: Place,
}

/// Where on the page a list stands; `None` where there was no room for it.
pub(super) type Place = Option<usize>;

#[derive(Debug)]
enum Pinned {
    Combo { _combo: Weak<ComboState> },
    Provider { _provider: Weak<ProviderState> },
}

/// A list as it is read.
#[derive(Deserialize)]
struct List {
    via: String,
    combo: Option<String>,
    strategy: String,
    /// How many candidates each target is.
    #[serde(default)]
    counts: Vec<usize>,
    /// The target whose accounts those behind them are.
    rest: Option<usize>,
    candidates: Vec<Alike>,
}

/// A decision by its list, as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByList {
    list: i64,
    seed: u64,
    turn: Option<u64>,
    /// What it would have cost at each target, in billionths of a US dollar; a single one stands for all of them.
    #[serde(default)]
    costs: Vec<Option<i64>>,
    decided_at: i64,
}

impl Lists {
    /// Makes the decision's shape the one that is being looked for; gives what it speaks of, and whether it is another one than
    /// before.
    pub(super) fn look_for<'d>(
        &mut self,
        row: &RequestRow,
        decision: &'d Decision,
    ) -> Option<(Pin<'d>, bool)> {
        self.key.clear();
        let pin = decision.shape(row.client_dialect, &mut self.key)?;
        self.key.extend_from_slice(row.combo.as_deref().unwrap_or_default().as_bytes());
        let hash = self.hasher.hash_one(&*self.key);
        let is_other = hash != std::mem::replace(&mut self.hash, hash);
        Some((pin, is_other))
    }

    /// What is known of the list with that shape.
    pub(super) fn known(&self) -> Option<Place> {
        self.known.get(&self.hash).filter(|known| *known.key == *self.key).map(|known| known.place)
    }

    /// Whether that shape was met before, as far as is remembered. An order by chance seldom is, and is not worth a list.
    pub(super) fn was_met(&mut self) -> bool {
        if self.met.len() >= MAX_MET {
            self.met.clear();
        }
        !self.met.insert(self.hash)
    }

    /// Remembers where the list with that shape stands.
    pub(super) fn keep(&mut self, pin: Pin<'_>, place: Place) {
        // Every change of the configuration brings others.
        if self.known.len() >= MAX_LISTS {
            self.known.clear();
        }
        let pinned = match pin {
            Pin::Combo(combo) => Pinned::Combo { _combo: Arc::downgrade(combo) },
            Pin::Provider(provider) => Pinned::Provider { _provider: Arc::downgrade(provider) },
        };
        let key = self.key.as_slice().into();
        self.known.insert(self.hash, Known { key, _pinned: pinned, place });
    }
}

/// The list of a decision that has a shape.
pub(super) fn text(row: &RequestRow, decision: &Decision, names: &mut Names) -> Option<String> {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    kept::begin(&mut object, row, decision);
    let mut counts = object.array("counts");
    decision.counts().take(MAX_TARGETS).for_each(|count| json_out::u64(counts.element(), count as u64));
    counts.end();
    object.opt_u64("rest", decision.rest().map(|target| target as u64));
    let mut groups = Groups::begin(object.array("candidates"), names);
    decision.visit(row.client_dialect, |mut candidate| {
        candidate.cost_nano = None;
        groups.add(candidate);
    });
    groups.end();
    object.end();
    String::from_utf8(out.into()).ok()
}

/// Appends a decision whose list stands at `place`.
pub(super) fn write(decision: &Decision, place: i64, out: &mut BytesMut) {
    let mut object = Object::begin(out);
    object.i64("list", place).u64("seed", decision.seed);
    object.opt_u64("turn", decision.combo.as_ref().map(|_| decision.turn));
    let mut costs = decision.costs();
    if let Some(first) = costs.next() {
        let are_alike = costs.all(|cost| cost == first);
        let mut array = object.array("costs");
        for cost in decision.costs().take(if are_alike { 1 } else { MAX_TARGETS }) {
            match cost {
                Some(cost) => json_out::i64(array.element(), cost),
                None => array.element().extend_from_slice(b"null"),
            }
        }
        array.end();
    }
    object.i64("decidedAt", decision.decided_at);
    object.end();
}

/// The decision, if it is one by a list.
pub(super) fn told(text: &str, page: &Page) -> Option<Result<LoggedDecision, StoreError>> {
    let by_list = serde_json::from_str::<ByList>(text).ok()?;
    Some(tell(by_list, page))
}

fn tell(decision: ByList, page: &Page) -> Result<LoggedDecision, StoreError> {
    let ByList { list: place, seed, turn, costs, decided_at } = decision;
    let damaged = |why: String| StoreError::Damaged(format!("routing_names: list {place}: {why}"));
    let list = page.lists.get(&place).ok_or_else(|| damaged("it is missing".to_owned()))?;
    let list: List = serde_json::from_str(list).map_err(|error| damaged(error.to_string()))?;
    let mut candidates = kept::candidates(list.candidates, &page.names)?;
    let targets =
        list.counts.iter().enumerate().flat_map(|(target, count)| std::iter::repeat_n(target, *count));
    let targets = targets.map(Some).chain(std::iter::repeat(list.rest));
    for (candidate, target) in candidates.iter_mut().zip(targets) {
        let Some(target) = target else { break };
        candidate.cost_nano =
            *if let [of_all] = &*costs { of_all } else { costs.get(target).unwrap_or(&None) };
    }
    Ok(LoggedDecision {
        via: Some(list.via),
        combo: list.combo,
        strategy: Some(list.strategy),
        seed,
        turn,
        task: None,
        policies: Vec::new(),
        observed: Vec::new(),
        budget: None,
        handoff_from: None,
        candidates,
        decided_at,
    })
}
