//! Names of candidates, each once: `routing_names`. A thousand decisions name the same few accounts, and a place in a list is
//! shorter than four ids.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use omniroute_domain::snapshot::{ConnectionState, ProviderState};
use omniroute_engine::decision::{Decision, RecordedCandidate, Whose};
use omniroute_engine::ports::RequestRow;

use super::kept::Own;
use super::lists::{self, Lists, MAX_LISTS};
use crate::error::StoreError;
use crate::pool::with_read;
use crate::store::Store;
use crate::text::{clip, random, to_hex};
use crate::usage::DAY_MS;

/// Most names of a page.
const MAX_NAMES: usize = 4_096;
/// Longest name that is kept whole.
const MAX_NAME: usize = 256;
/// How many of those that were met last have their names found at once.
const MET: usize = 1_024;
/// For how long a page is added to.
const PAGE_MS: i64 = DAY_MS;
/// Names are needed by no decision that is younger than they are by so much: a page's time, and as much again because requests
/// are written in another order than they began.
pub(crate) const NEEDED_MS: i64 = 2 * PAGE_MS;

pub(crate) const COLUMNS: [&str; 9] = [
    "page",
    "place",
    "provider",
    "model",
    "connection_id",
    "connection_name",
    "dialect",
    "list",
    "created_at",
];

/// The page that is being filled.
#[derive(Debug)]
pub(crate) struct Names {
    page: Arc<str>,
    created_at: i64,
    /// In order of their places.
    names: Vec<Name>,
    /// How many of them a transaction wrote.
    written: usize,
    /// Their places by a hash of them.
    places: HashMap<u64, usize, RandomState>,
    /// Those of the latest candidates, by where the things are kept that have the names: nothing has to be hashed.
    met: Vec<Option<Met>>,
    hasher: RandomState,
    /// The places of lists, and how many there are.
    lists: Lists,
    listed: usize,
}

/// Somebody with a name.
#[derive(Debug)]
struct Met {
    /// Where it is kept.
    at: usize,
    /// Nothing else can come to be there.
    _kept: Kept,
    place: usize,
}

#[derive(Debug)]
enum Kept {
    Account { _account: Weak<ConnectionState> },
    Provider { _provider: Weak<ProviderState> },
}

/// What a candidate is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) provider: Option<Arc<str>>,
    pub(crate) model: Arc<str>,
    /// The account's id and its name.
    pub(crate) connection: Option<(Arc<str>, Arc<str>)>,
    pub(crate) dialect: Option<&'static str>,
    /// What stands there is a list, and no name.
    pub(crate) list: Option<Arc<str>>,
}

impl Name {
    /// As it is kept.
    fn of(candidate: &RecordedCandidate<'_>) -> Self {
        let kept = |text: &str| Arc::<str>::from(clip(text, MAX_NAME));
        Self {
            provider: candidate.provider.map(kept),
            model: kept(candidate.model),
            connection: candidate.connection.map(|(id, name)| (kept(id), kept(name))),
            dialect: candidate.dialect,
            list: None,
        }
    }

    fn is_of(&self, candidate: &RecordedCandidate<'_>) -> bool {
        let connection = self.connection.as_ref().map(|(id, name)| (&**id, &**name));
        let is_alike = (&*self.model, self.provider.as_deref(), connection, self.dialect)
            == (candidate.model, candidate.provider, candidate.connection, candidate.dialect);
        // Too long, or with what databases do not take.
        is_alike || *self == Self::of(candidate)
    }
}

/// A name as it was written.
#[derive(sqlx::FromRow)]
struct Written {
    place: i64,
    provider: Option<String>,
    model: String,
    connection_id: Option<String>,
    connection_name: Option<String>,
    dialect: Option<String>,
    list: Option<String>,
}

/// What stands on a page, by its place.
#[derive(Default)]
pub(super) struct Page {
    pub(super) names: HashMap<i64, Own>,
    /// Lists of candidates, as JSON.
    pub(super) lists: HashMap<i64, String>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            page: to_hex(&random::<8>()).into(),
            created_at: 0,
            names: Vec::new(),
            written: 0,
            places: HashMap::default(),
            met: Vec::new(),
            hasher: RandomState::default(),
            lists: Lists::default(),
            listed: 0,
        }
    }
}

impl Names {
    /// Begins another page where this one is full or old. Meant to be called before a batch.
    pub(crate) fn turn(&mut self, now_ms: i64) {
        let is_old = now_ms.saturating_sub(self.created_at) >= PAGE_MS;
        if self.names.len() >= MAX_NAMES || is_old {
            *self = Self { created_at: now_ms, ..Self::default() };
        }
    }

    /// The page's id.
    pub(crate) fn page(&self) -> Arc<str> {
        self.page.clone()
    }

    /// The place of a candidate's name; `None` where the page has no room for it.
    pub(super) fn place(&mut self, candidate: &RecordedCandidate<'_>) -> Option<i64> {
        let RecordedCandidate { whose, model, dialect, .. } = *candidate;
        let Some(whose) = whose else { return self.place_of(candidate).and_then(number) };
        let at = whose.place();
        let slot = slot(at, model);
        if let Some(Some(met)) = self.met.get(slot)
            && met.at == at
            && let Some(name) = self.names.get(met.place)
            && *name.model == *model
            && name.dialect == dialect
        {
            return number(met.place);
        }
        let place = self.place_of(candidate)?;
        self.met.resize_with(MET, || None);
        self.met[slot] = Some(Met { at, _kept: Kept::of(whose), place });
        number(place)
    }

    /// The same by its texts.
    fn place_of(&mut self, candidate: &RecordedCandidate<'_>) -> Option<usize> {
        // What tells nearly all apart. Two that it does not, such as an account before and after it got another name, have the
        // hash of the first.
        let RecordedCandidate { provider, model, connection, dialect, .. } = *candidate;
        let whose = connection.map(|(id, _)| id).or(provider);
        let hash = self.hasher.hash_one((whose, model, dialect));
        match self.places.get(&hash) {
            // Another name of the same hash stands in the decision itself.
            Some(place) => self.names.get(*place).filter(|name| name.is_of(candidate)).map(|_| *place),
            None if self.names.len() >= MAX_NAMES => None,
            None => {
                let place = self.names.len();
                self.names.push(Name::of(candidate));
                self.places.insert(hash, place);
                Some(place)
            }
        }
    }

    /// The place of the list of a decision's candidates; `None` where there is more to be said of them, no room, or no other
    /// decision with the same.
    pub(super) fn list(&mut self, row: &RequestRow, decision: &Decision) -> Option<i64> {
        let (pin, _) = self.lists.look_for(row, decision)?;
        if let Some(place) = self.lists.known() {
            return place.and_then(number);
        }
        if !self.lists.was_met() {
            return None;
        }
        let text = lists::text(row, decision, self)?;
        // What accounts are asked in may change while it is put into words.
        if self.lists.look_for(row, decision)?.1 {
            return None;
        }
        let place = self.place_of_list(text.into());
        self.lists.keep(pin, place);
        place.and_then(number)
    }

    /// Another state of the configuration may have had the same.
    fn place_of_list(&mut self, text: Arc<str>) -> Option<usize> {
        let hash = self.hasher.hash_one(("list", &*text));
        if let Some(place) = self.places.get(&hash) {
            return self.names.get(*place).filter(|name| name.list.as_ref() == Some(&text)).map(|_| *place);
        }
        if self.names.len() >= MAX_NAMES || self.listed >= MAX_LISTS {
            return None;
        }
        let place = self.names.len();
        let (provider, model, connection, dialect) = (None, Arc::default(), None, None);
        self.names.push(Name { provider, model, connection, dialect, list: Some(text) });
        self.places.insert(hash, place);
        self.listed += 1;
        Some(place)
    }

    /// Those that are not written yet, with their places.
    pub(crate) fn unwritten(&self) -> Vec<(i64, Name)> {
        let new = self.names.iter().enumerate().skip(self.written);
        new.filter_map(|(place, name)| Some((number(place)?, name.clone()))).collect()
    }

    /// The transaction that wrote them is over.
    pub(crate) fn written(&mut self) {
        self.written = self.names.len();
    }

    pub(crate) fn created_at(&self) -> i64 {
        self.created_at
    }
}

impl Kept {
    fn of(whose: Whose<'_>) -> Self {
        match whose {
            Whose::Account(account) => Self::Account { _account: Arc::downgrade(account) },
            Whose::Provider(provider) => Self::Provider { _provider: Arc::downgrade(provider) },
        }
    }
}

/// Where among those that were met last something is looked for.
fn slot(at: usize, model: &str) -> usize {
    let mixed = ((at ^ model.len()) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 32).unwrap_or(0) % MET
}

fn number(place: usize) -> Option<i64> {
    i64::try_from(place).ok()
}

/// Binds the columns of a name.
macro_rules! bind_name {
    ($query:expr, $names:expr, $place:expr, $name:expr) => {{
        let (names, name): (&$crate::decisions::Names, &$crate::decisions::Name) = ($names, $name);
        let connection = name.connection.as_ref();
        $query
            .bind(names.page())
            .bind(*$place)
            .bind(name.provider.clone())
            .bind(name.model.clone())
            .bind(connection.map(|(id, _)| id.clone()))
            .bind(connection.map(|(_, name)| name.clone()))
            .bind(name.dialect)
            .bind(name.list.clone())
            .bind(names.created_at())
    }};
}
pub(crate) use bind_name;

/// All that stands on a page.
pub(super) async fn of_page(store: &Store, page: &str) -> Result<Page, StoreError> {
    let rows: Vec<Written> = with_read!(store.pool(), |db| {
        sqlx::query_as(
            "SELECT place, provider, model, connection_id, connection_name, dialect, list FROM routing_names
             WHERE page = $1",
        )
        .bind(page)
        .fetch_all(&mut *db)
        .await?
    });
    let mut page = Page::default();
    for row in rows {
        let Written { place, provider, model, connection_id, connection_name, dialect, list } = row;
        match list {
            Some(list) => drop(page.lists.insert(place, list)),
            None => {
                let connection = connection_id.zip(connection_name);
                page.names.insert(place, Own { provider, model, connection, dialect });
            }
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_323_045_678;

    fn candidate(model: &str) -> RecordedCandidate<'_> {
        RecordedCandidate {
            provider: Some("openai"),
            model,
            connection: Some(("c1", "work")),
            dialect: Some("openai"),
            ..RecordedCandidate::default()
        }
    }

    #[test]
    fn a_name_has_one_place_and_is_written_once() {
        let mut names = Names::default();
        names.turn(NOW);
        let place = |names: &mut Names, model: &str| names.place(&candidate(model)).unwrap();
        assert_eq!(["a", "b", "a"].map(|model| place(&mut names, model)), [0, 1, 0]);
        let unwritten = |names: &Names| -> Vec<(i64, String)> {
            names.unwritten().into_iter().map(|(place, name)| (place, name.model.to_string())).collect()
        };
        assert_eq!(unwritten(&names), [(0, "a".to_owned()), (1, "b".to_owned())]);
        // Until a transaction wrote them, the next one has to.
        place(&mut names, "c");
        assert_eq!(unwritten(&names).len(), 3);
        names.written();
        assert_eq!(place(&mut names, "b"), 1);
        place(&mut names, "d");
        assert_eq!(unwritten(&names), [(3, "d".to_owned())]);
        let others = [
            RecordedCandidate { connection: None, ..candidate("a") },
            RecordedCandidate { connection: Some(("c2", "work")), ..candidate("a") },
            RecordedCandidate { connection: None, provider: None, ..candidate("a") },
            RecordedCandidate { dialect: None, ..candidate("a") },
        ];
        assert_eq!(others.map(|other| names.place(&other)), [4, 5, 6, 7].map(Some), "these are other names");
        let renamed = RecordedCandidate { connection: Some(("c1", "play")), ..candidate("a") };
        assert_eq!(names.place(&renamed), None, "so is this one, but its hash is taken");
    }

    #[test]
    fn a_name_that_is_too_long_is_kept_in_part() {
        let long = "m".repeat(300);
        let mut names = Names::default();
        assert_eq!([(); 2].map(|()| names.place(&candidate(&long))), [Some(0); 2]);
        assert_eq!(names.place(&candidate(&long[1..])), Some(1), "what is left out counts too");
        assert_eq!(names.unwritten()[0].1.model.len(), MAX_NAME);
    }

    #[test]
    fn a_page_ends_when_it_is_full_or_a_day_old() {
        let mut names = Names::default();
        names.turn(NOW);
        let first = names.page();
        names.place(&candidate("a")).unwrap();
        names.turn(NOW + PAGE_MS - 1);
        assert_eq!(names.page(), first);
        names.turn(NOW + PAGE_MS);
        let second = names.page();
        assert_ne!(second, first);
        assert!(names.unwritten().is_empty());
        for number in 0..MAX_NAMES {
            names.place(&candidate(&number.to_string())).unwrap();
        }
        assert_eq!(names.place(&candidate("7")).unwrap(), 7);
        assert_eq!(names.place(&candidate("one too many")), None);
        names.turn(NOW + PAGE_MS);
        assert_ne!(names.page(), second);
    }
}
