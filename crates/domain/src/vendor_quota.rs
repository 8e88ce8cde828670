//! What vendors say is left of an account when they are asked for it, and what follows: nothing left ends the account until
//! there is more, little left lets others come first. Holds no clock; requests read it without a lock.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use omniroute_provider::quota_api::{QuotaApi, Reading};

use crate::plan::LOW;

/// With this share left or less it is told that little is left.
const ALERT: f64 = 0.20;
/// So long an answer is taken for the truth, before the vendor is asked again.
pub const FRESH_MS: i64 = 60_000;
/// What is left is written down when it was not for so long, or when it matters.
const NOTE_EVERY_MS: i64 = 60 * 60 * 1_000;
/// How long after the next look ought to have been what is known still counts.
const GRACE_MS: i64 = 5 * 60 * 1_000;

/// What a vendor says of one account. Survives configuration changes.
#[derive(Debug, Default)]
pub struct VendorQuota {
    /// Until when nothing is left; 0 = there is something.
    spent_until: AtomicI64,
    /// Until when little is left.
    low_until: AtomicI64,
    /// Until when the share counts.
    share_until: AtomicI64,
    /// Bits of an `f64`: the share of the scarcest quota.
    share: AtomicU64,
    /// When that is counted anew; 0 = nobody knows.
    reset_at: AtomicI64,
    /// When the vendor is asked next; 0 = soon.
    due_at: AtomicI64,
    is_asked: AtomicBool,
    known: Mutex<Known>,
}

/// What is known, for people.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What the vendor told last.
    pub reading: Option<Arc<Reading>>,
    /// When that was.
    pub read_at: i64,
    /// When it was asked last, whatever came of it; 0 = never.
    pub asked_at: i64,
    /// What went wrong then, wholly or in part.
    pub error: Option<Arc<str>>,
    standing: Standing,
    noted_at: i64,
    /// How the account that this is known of is asked.
    api: Option<Arc<QuotaApi>>,
    /// How often everything was forgotten.
    generation: u64,
}

/// How an account stands by its vendor's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// More than a fifth, or unknown.
    #[default]
    Fine,
    /// A fifth or less.
    Low,
    /// Nothing.
    Spent,
}

/// What a look changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// How it stood before.
    pub from: Standing,
    /// How it stands.
    pub to: Standing,
    /// The share that is left, as far as the vendor says how much there is.
    pub share: Option<f64>,
    /// When there is more, or the vendor is asked again at the latest.
    pub until: Option<i64>,
    /// Whether what is left is to be written down.
    pub is_noted: bool,
}

/// Who asks the vendor; nobody else does so until this is dropped.
#[derive(Debug)]
pub struct Asking<'a> {
    place: &'a VendorQuota,
    generation: u64,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.place.is_asked.store(false, Ordering::Release);
    }
}

/// How what a vendor told is taken.
#[derive(Debug, Clone, Copy)]
pub struct Taking {
    /// When, in epoch milliseconds.
    pub now_ms: i64,
    /// When the vendor is asked next.
    pub next_ms: i64,
    /// Whether it decides over the account; not where it is said of one of several keys.
    pub is_binding: bool,
}

impl VendorQuota {
    /// A copy that goes its own way.
    pub(crate) fn apart(&self) -> Self {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let time = |time: &AtomicI64| AtomicI64::new(time.load(Ordering::Acquire));
        Self {
            spent_until: time(&self.spent_until),
            low_until: time(&self.low_until),
            share_until: time(&self.share_until),
            share: AtomicU64::new(self.share.load(Ordering::Acquire)),
            reset_at: time(&self.reset_at),
            due_at: time(&self.due_at),
            is_asked: AtomicBool::new(self.is_asked.load(Ordering::Acquire)),
            known: Mutex::new(known),
        }
    }

    /// Whether it is time to ask.
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.due_at.load(Ordering::Acquire) <= now_ms && !self.is_asked.load(Ordering::Acquire)
    }

    /// Something happened that the vendor ought to know more of: it is asked as soon as that may be.
    pub fn ask_soon(&self, now_ms: i64) {
        let earliest = self.known().asked_at.saturating_add(FRESH_MS).max(now_ms);
        self.due_at.fetch_min(earliest, Ordering::AcqRel);
    }

    /// This is how the account is asked from now on. Where it is not how it was, it is another account, and what was known of
    /// the one before it is forgotten.
    pub fn belongs_to(&self, api: Option<&Arc<QuotaApi>>) {
        let mut known = self.known();
        let is_same = match (&known.api, api) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.is_same(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            known.api = api.cloned();
            self.forget_all(&mut known);
        }
    }

    /// Begins to ask; `None` where somebody does, or did a moment ago, and where this is not how the account is asked any more.
    pub fn begin(&self, now_ms: i64, api: &Arc<QuotaApi>) -> Option<Asking<'_>> {
        let known = self.known();
        if !known.api.as_ref().is_some_and(|own| Arc::ptr_eq(own, api) || own.is_same(api)) {
            return None;
        }
        if known.asked_at > 0 && now_ms.saturating_sub(known.asked_at) < FRESH_MS {
            return None;
        }
        let is_free =
            self.is_asked.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        is_free.then(|| Asking { place: self, generation: known.generation })
    }

    /// The vendor told something, if perhaps not all. `None` where that was of an account that was forgotten meanwhile.
    pub fn told(
        &self,
        asking: Asking<'_>,
        reading: Reading,
        error: Option<Arc<str>>,
        taking: Taking,
    ) -> Option<Turn> {
        let mut known = self.known();
        if known.generation != asking.generation {
            return None;
        }
        let Taking { now_ms, next_ms, is_binding } = taking;
        let counts_until = next_ms.saturating_add(GRACE_MS);
        let ahead = |at: &i64| *at > now_ms;
        let scarcest = reading.scarcest();
        let share = if reading.is_spent { Some(0.0) } else { scarcest.map(|(share, _)| share) };
        let standing = match share {
            _ if reading.is_spent => Standing::Spent,
            Some(share) if share <= ALERT => Standing::Low,
            Some(_) | None => Standing::Fine,
        };
        let reset_at =
            if reading.is_spent { reading.back_at() } else { scarcest.and_then(|(_, reset)| reset) };
        let reset_at = reset_at.filter(ahead);
        // Without a time the account is held until the vendor had to say otherwise.
        let until = reset_at.unwrap_or(counts_until);
        let put = |place: &AtomicI64, is_so: bool, until: i64| {
            place.store(if is_so && is_binding { until } else { 0 }, Ordering::Release);
        };
        put(&self.spent_until, reading.is_spent, until);
        put(&self.low_until, share.is_some_and(|share| share <= LOW), until.min(counts_until));
        self.share.store(share.unwrap_or(1.0).to_bits(), Ordering::Release);
        self.reset_at.store(reset_at.unwrap_or(0), Ordering::Release);
        put(&self.share_until, share.is_some(), until.min(counts_until));
        self.due_at.store(next_ms, Ordering::Release);

        let from = std::mem::replace(&mut known.standing, standing);
        let is_noted = from != standing || now_ms.saturating_sub(known.noted_at) >= NOTE_EVERY_MS;
        if is_noted {
            known.noted_at = now_ms;
        }
        known.reading = Some(Arc::new(reading));
        known.error = error;
        (known.read_at, known.asked_at) = (now_ms, now_ms);
        drop(known);
        drop(asking);
        let until = if standing == Standing::Spent { Some(until) } else { reset_at };
        Some(Turn { from, to: standing, share, until, is_noted })
    }

    /// The vendor told nothing. What it told before counts as long as it would have.
    pub fn failed(&self, asking: Asking<'_>, error: Arc<str>, Taking { now_ms, next_ms, .. }: Taking) {
        let mut known = self.known();
        if known.generation != asking.generation {
            return;
        }
        self.due_at.store(next_ms, Ordering::Release);
        known.error = Some(error);
        known.asked_at = now_ms;
        drop(known);
        drop(asking);
    }

    /// Until when nothing is left.
    pub fn spent_until(&self, now_ms: i64) -> Option<i64> {
        Some(self.spent_until.load(Ordering::Acquire)).filter(|until| *until > now_ms)
    }

    /// Whether little is left.
    pub fn is_low(&self, now_ms: i64) -> bool {
        self.low_until.load(Ordering::Acquire) > now_ms
    }

    /// The share that is left and when it is counted anew; `None` where that is not known.
    pub fn left(&self, now_ms: i64) -> Option<(f64, Option<i64>)> {
        if self.share_until.load(Ordering::Acquire) <= now_ms {
            return None;
        }
        let reset_at = self.reset_at.load(Ordering::Acquire);
        Some((f64::from_bits(self.share.load(Ordering::Acquire)), (reset_at > 0).then_some(reset_at)))
    }

    /// What there is to show.
    pub fn view(&self) -> Known {
        self.known().clone()
    }

    /// Nothing is known any more, and the vendor is asked soon: it may be another account now.
    pub fn forget(&self) {
        self.forget_all(&mut self.known());
    }

    fn forget_all(&self, known: &mut Known) {
        for place in [&self.spent_until, &self.low_until, &self.share_until, &self.due_at] {
            place.store(0, Ordering::Release);
        }
        let (api, generation) = (known.api.take(), known.generation.wrapping_add(1));
        *known = Known { api, generation, ..Known::default() };
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use omniroute_provider::provider::ConnectionInput;
    use omniroute_provider::quota_api::{Amount, ToldQuota};
    use omniroute_provider::{catalog, registry};

    use super::*;

    const NOW: i64 = 1_795_780_800_000;
    const HOUR: i64 = 3_600_000;

    fn quota(remaining: &str, total: Option<&str>, reset_at: Option<i64>) -> ToldQuota {
        ToldQuota {
            name: "key".into(),
            used: None,
            total: total.and_then(Amount::parse),
            remaining: Amount::parse(remaining),
            unit: "usd".into(),
            reset_at,
        }
    }

    fn reading(remaining: &str, total: Option<&str>, reset_at: Option<i64>) -> Reading {
        let quota = quota(remaining, total, reset_at);
        Reading { is_spent: quota.is_spent(), quotas: vec![quota], ..Reading::default() }
    }

    fn api(key: &str) -> Arc<QuotaApi> {
        let spec = catalog::catalog().provider("openrouter").unwrap().clone();
        let input = ConnectionInput { api_key: Some(key), ..ConnectionInput::default() };
        registry::provider_for(spec).quota_api(&input).unwrap().unwrap()
    }

    fn place() -> VendorQuota {
        let place = VendorQuota::default();
        place.belongs_to(Some(&api("sk-1")));
        place
    }

    fn begin(place: &VendorQuota, now_ms: i64) -> Option<Asking<'_>> {
        place.begin(now_ms, &api("sk-1"))
    }

    fn take(place: &VendorQuota, reading: Reading, now_ms: i64) -> Turn {
        let asking = begin(place, now_ms).expect("nobody asks");
        let taking = Taking { now_ms, next_ms: now_ms + HOUR, is_binding: true };
        place.told(asking, reading, None, taking).expect("it is the same account")
    }

    #[test]
    fn what_follows_from_what_is_left() {
        let reset = Some(NOW + 10 * HOUR);
        let late = NOW + HOUR + GRACE_MS;
        for (remaining, total, reset_at, standing, is_low, spent_until) in [
            ("50", Some("100"), reset, Standing::Fine, false, None),
            ("20", Some("100"), reset, Standing::Low, false, None),
            ("10", Some("100"), reset, Standing::Low, true, None),
            ("0", Some("100"), reset, Standing::Spent, true, reset),
            ("-1", Some("100"), None, Standing::Spent, true, Some(late)),
            ("0", None, None, Standing::Spent, true, Some(late)),
            // The vendor counted anew while it answered.
            ("0", Some("100"), Some(NOW), Standing::Spent, true, Some(late)),
            ("0.01", None, None, Standing::Fine, false, None),
            ("0", Some("0"), None, Standing::Fine, false, None),
        ] {
            let place = place();
            let turn = take(&place, reading(remaining, total, reset_at), NOW);
            let case = (remaining, total);
            assert_eq!((turn.from, turn.to, turn.is_noted), (Standing::Fine, standing, true), "{case:?}");
            assert_eq!((place.is_low(NOW), place.spent_until(NOW)), (is_low, spent_until), "{case:?}");
            assert!(spent_until.is_none_or(|until| place.spent_until(until).is_none()), "{case:?}");
            assert!(
                !place.is_low(late) && place.left(late).is_none(),
                "{case:?}: what is old does not count"
            );
        }
    }

    #[test]
    fn another_look_says_otherwise_and_each_change_is_told_once() {
        let place = place();
        let turns: Vec<_> = [("15", 0), ("14", 1), ("0", 2), ("0", 3), ("80", 4)]
            .map(|(left, hour)| {
                let turn = take(&place, reading(left, Some("100"), None), NOW + hour * HOUR / 2);
                (turn.from, turn.to, turn.is_noted)
            })
            .into();
        use Standing::{Fine, Low, Spent};
        let expected = [
            (Fine, Low, true),
            (Low, Low, false),
            (Low, Spent, true),
            (Spent, Spent, false),
            (Spent, Fine, true),
        ];
        assert_eq!(turns, expected);
        assert_eq!(place.spent_until(NOW + 2 * HOUR), None, "there is money again");
        assert_eq!(place.left(NOW + 2 * HOUR), Some((0.8, None)));
        place.forget();
        assert!(place.is_due(NOW) && place.left(NOW).is_none() && place.view().reading.is_none());
    }

    #[test]
    fn one_asks_at_a_time_and_not_again_at_once() {
        let place = place();
        assert!(place.is_due(NOW));
        let asking = begin(&place, NOW).expect("nobody asks");
        assert!(begin(&place, NOW).is_none() && !place.is_due(NOW));
        drop(asking);
        let asking = begin(&place, NOW).expect("who asked went away");
        place.failed(asking, "down".into(), Taking { now_ms: NOW, next_ms: NOW + HOUR, is_binding: true });
        assert!(begin(&place, NOW + FRESH_MS - 1).is_none());
        assert_eq!(place.view().error.as_deref(), Some("down"));
        place.ask_soon(NOW + 1);
        assert!(!place.is_due(NOW + FRESH_MS - 1) && place.is_due(NOW + FRESH_MS));
        take(&place, reading("1", None, None), NOW + FRESH_MS);
        assert!(!place.is_due(NOW + FRESH_MS + HOUR - 1) && place.is_due(NOW + FRESH_MS + HOUR));
    }

    #[test]
    fn what_was_said_of_another_account_counts_for_nothing() {
        let taking = Taking { now_ms: NOW, next_ms: NOW + HOUR, is_binding: true };
        let spent = || reading("0", Some("100"), Some(NOW + 99 * HOUR));
        let place = place();
        take(&place, spent(), NOW);
        place.belongs_to(Some(&api("sk-1")));
        assert!(place.spent_until(NOW).is_some(), "it is the same account");
        place.belongs_to(Some(&api("sk-2")));
        assert!(place.spent_until(NOW).is_none() && place.view().reading.is_none() && place.is_due(NOW));
        assert!(begin(&place, NOW).is_none(), "the key of before is not asked");

        // A look that began before.
        let asking = place.begin(NOW, &api("sk-2")).expect("nobody asks");
        place.belongs_to(Some(&api("sk-1")));
        assert_eq!(place.told(asking, spent(), None, taking), None);
        let asking = begin(&place, NOW).expect("nobody asks");
        place.forget();
        place.failed(asking, "refused".into(), taking);
        let known = place.view();
        assert!(place.spent_until(NOW).is_none() && place.is_due(NOW));
        assert!(known.reading.is_none() && known.error.is_none());
        assert!(begin(&place, NOW).is_some(), "the account is asked at once");

        take(&place, spent(), NOW);
        place.belongs_to(None);
        assert!(place.spent_until(NOW).is_none(), "it cannot be asked any more");
    }

    #[test]
    fn an_empty_purse_leaves_what_is_free() {
        let place = place();
        let empty = Reading { is_spent: false, is_dry: true, ..reading("0", None, None) };
        let turn = take(&place, empty, NOW);
        assert_eq!((turn.to, turn.share), (Standing::Low, Some(0.0)));
        assert_eq!((place.spent_until(NOW), place.is_low(NOW)), (None, true), "others come first");
        assert_eq!(place.left(NOW), Some((0.0, None)));
    }

    #[test]
    fn what_is_said_of_one_of_several_keys_decides_nothing() {
        let place = place();
        let asking = begin(&place, NOW).expect("nobody asks");
        let taking = Taking { now_ms: NOW, next_ms: NOW + HOUR, is_binding: false };
        assert!(place.told(asking, reading("0", Some("5"), None), None, taking).is_some());
        assert_eq!((place.spent_until(NOW), place.is_low(NOW), place.left(NOW)), (None, false, None));
        assert!(place.view().reading.is_some());
    }
}
