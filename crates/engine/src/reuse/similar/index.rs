//! Vectors of questions in memory, in groups of those that may be compared at all: of one tenant, with the same rest and
//! of the same model.
//!
//! The search is exact: a product with each vector of the group. Groups are many and mostly small, and even ten thousand
//! vectors take a millisecond or so, so there is nothing that an approximate index could save. Vectors stand side by side
//! in pieces that a search shares, so that the lock is held for neither a search nor a copy of all.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use simsimd::SpatialSimilarity as _;

use crate::ports::QuestionRow;

/// Most bytes of all questions together.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// What a question takes beside its vector and texts.
const OVERHEAD: usize = 512;
/// Vectors in a piece.
const PIECE: usize = 64;
/// Pieces that are searched before others have their turn on the thread.
const AT_ONCE: usize = 16;
/// Most questions that a search gives, the closest ones.
const MAX_CLOSE: usize = 16;

/// What a group is known by.
pub(super) type Bucket = [u8; 32];

/// All questions.
#[derive(Default)]
pub(super) struct Index(Mutex<Inner>);

/// A question that was answered.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where its answer is.
    pub(super) signature: Arc<str>,
    /// The model as it was asked for.
    pub(super) asked: String,
    /// The question.
    pub(super) text: String,
    /// Until when its answer may be given.
    pub(super) expires_at: i64,
}

/// A question that is close to another.
#[derive(Debug, Clone)]
pub(in crate::reuse) struct Close {
    /// Up to 1.
    pub(super) similarity: f64,
    pub(super) entry: Arc<Entry>,
}

impl Close {
    /// Where its answer is.
    pub(in crate::reuse) fn signature(&self) -> &str {
        &self.entry.signature
    }
}

#[derive(Default)]
struct Inner {
    groups: HashMap<Bucket, Vec<Arc<Piece>>>,
    /// The questions of each tenant in the order in which they came.
    tenants: HashMap<Arc<str>, BTreeMap<u64, Arc<str>>>,
    places: HashMap<Arc<str>, Place>,
    next: u64,
    bytes: usize,
}

struct Place {
    bucket: Bucket,
    tenant: Arc<str>,
    number: u64,
    bytes: usize,
    created_at: i64,
    expires_at: i64,
}

#[derive(Clone, Default)]
struct Piece {
    vectors: Vec<f32>,
    entries: Vec<Arc<Entry>>,
}

impl Index {
    /// Takes a question, and forgets older ones where there is no room; `most` is what a tenant may have. What cannot be a
    /// vector is left out.
    pub(super) fn insert(&self, row: QuestionRow, most: u32) {
        let Some(vector) = from_bytes(&row.vector) else { return };
        let mut inner = self.inner();
        if inner.places.get(&*row.signature).is_some_and(|place| place.created_at >= row.created_at) {
            return;
        }
        inner.remove(&row.signature);
        let tenant = inner.insert(row, &vector);
        while inner.bytes > MAX_BYTES && inner.forget_oldest_of_largest() {}
        inner.keep_newest(&tenant, most);
    }

    /// The questions of a group that are at least so close, the closest first.
    pub(super) async fn search(
        &self,
        bucket: &Bucket,
        vector: &[f32],
        threshold: f64,
        now_ms: i64,
    ) -> Vec<Close> {
        let pieces = self.inner().groups.get(bucket).cloned().unwrap_or_default();
        let mut found = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            if at % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            for (theirs, entry) in piece.vectors.chunks_exact(vector.len().max(1)).zip(&piece.entries) {
                let similarity = f32::dot(theirs, vector).unwrap_or(0.0).min(1.0);
                if similarity >= threshold && entry.expires_at > now_ms {
                    found.push(Close { similarity, entry: entry.clone() });
                }
            }
        }
        found.sort_by(|one, other| other.similarity.total_cmp(&one.similarity));
        found.truncate(MAX_CLOSE);
        found
    }

    /// Drops a question whose answer is gone.
    pub(super) fn forget(&self, signature: &str) {
        self.inner().remove(signature);
    }

    /// Drops those of a model (as it was asked for), under a signature, or all.
    pub(super) fn clear(&self, model: Option<&str>, signature: Option<&str>) {
        let mut inner = self.inner();
        if model.is_none() && signature.is_none() {
            *inner = Inner { next: inner.next, ..Inner::default() };
            return;
        }
        let entries = inner.groups.values().flatten().flat_map(|piece| &piece.entries);
        let meant = entries.filter(|entry| {
            signature.is_none_or(|wanted| *wanted == *entry.signature)
                && model.is_none_or(|wanted| wanted == entry.asked)
        });
        let meant: Vec<_> = meant.map(|entry| entry.signature.clone()).collect();
        for signature in meant {
            inner.remove(&signature);
        }
    }

    /// Drops what has expired.
    pub(super) fn sweep(&self, now_ms: i64) {
        let mut inner = self.inner();
        let expired = inner.places.iter().filter(|(_, place)| place.expires_at <= now_ms);
        let expired: Vec<_> = expired.map(|(signature, _)| signature.clone()).collect();
        for signature in expired {
            inner.remove(&signature);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.inner().places.len()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes a question; gives whose it is.
    fn insert(&mut self, row: QuestionRow, vector: &[f32]) -> Arc<str> {
        let bytes = size_of_val(vector) + row.text.len() + 2 * row.signature.len() + OVERHEAD;
        let (signature, number): (Arc<str>, u64) = (row.signature.into(), self.next);
        self.next += 1;
        let tenant = match self.tenants.get_key_value(&*row.tenant) {
            Some((tenant, _)) => tenant.clone(),
            None => row.tenant.into(),
        };
        let entry = Entry {
            signature: signature.clone(),
            asked: row.asked,
            text: row.text,
            expires_at: row.expires_at,
        };
        let pieces = self.groups.entry(row.bucket).or_default();
        if pieces.last().is_none_or(|last| last.entries.len() >= PIECE) {
            pieces.push(Arc::default());
        }
        if let Some(last) = pieces.last_mut() {
            // Copied only where a search holds it at this moment.
            let last = Arc::make_mut(last);
            last.vectors.extend_from_slice(vector);
            last.entries.push(Arc::new(entry));
        }
        self.tenants.entry(tenant.clone()).or_default().insert(number, signature.clone());
        let (bucket, created_at, expires_at) = (row.bucket, row.created_at, row.expires_at);
        let place = Place { bucket, tenant: tenant.clone(), number, bytes, created_at, expires_at };
        self.places.insert(signature, place);
        self.bytes += bytes;
        tenant
    }

    fn remove(&mut self, signature: &str) {
        let Some(place) = self.places.remove(signature) else { return };
        self.bytes -= place.bytes;
        if let Some(theirs) = self.tenants.get_mut(&place.tenant) {
            theirs.remove(&place.number);
            if theirs.is_empty() {
                self.tenants.remove(&place.tenant);
            }
        }
        let Some(pieces) = self.groups.get_mut(&place.bucket) else { return };
        for (at, piece) in pieces.iter_mut().enumerate() {
            let Some(row) = piece.entries.iter().position(|entry| &*entry.signature == signature) else {
                continue;
            };
            let piece = Arc::make_mut(piece);
            let length = piece.vectors.len() / piece.entries.len();
            piece.entries.swap_remove(row);
            let end = piece.entries.len() * length;
            piece.vectors.copy_within(end.., row * length);
            piece.vectors.truncate(end);
            // What is held beyond need would not be counted.
            if end < piece.vectors.capacity() / 2 {
                piece.vectors.shrink_to_fit();
                piece.entries.shrink_to_fit();
            }
            if piece.entries.is_empty() {
                pieces.remove(at);
            }
            break;
        }
        if pieces.is_empty() {
            self.groups.remove(&place.bucket);
        }
    }

    /// Nobody pushes out the questions of others by asking much.
    fn forget_oldest_of_largest(&mut self) -> bool {
        let largest = self.tenants.values().max_by_key(|questions| questions.len());
        let oldest = largest.and_then(|questions| questions.values().next().cloned());
        oldest.as_deref().map(|signature| self.remove(signature)).is_some()
    }

    /// Leaves a tenant so many of its questions.
    fn keep_newest(&mut self, tenant: &str, most: u32) {
        let Some(questions) = self.tenants.get(tenant) else { return };
        let too_many = questions.len().saturating_sub(most as usize);
        let oldest: Vec<_> = questions.values().take(too_many).cloned().collect();
        for signature in oldest {
            self.remove(&signature);
        }
    }
}

/// A vector of length one, as it is stored.
pub(super) fn to_bytes(vector: &[f32]) -> Bytes {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn from_bytes(bytes: &[u8]) -> Option<Vec<f32>> {
    let (values, []) = bytes.as_chunks::<4>() else { return None };
    let values: Vec<f32> = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
    (!values.is_empty()).then_some(values)
}

/// The vector in its direction that has the length one; `None` where there is no direction.
pub(super) fn normalised(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = f32::dot(&vector, &vector)?.sqrt();
    if !length.is_finite() || length <= f64::from(f32::MIN_POSITIVE) {
        return None;
    }
    for value in &mut vector {
        #[allow(clippy::cast_possible_truncation, reason = "it was a smaller number before")]
        let scaled = (f64::from(*value) / length) as f32;
        *value = scaled;
    }
    Some(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tenant: &str, name: &str, vector: &[f32]) -> QuestionRow {
        QuestionRow {
            signature: format!("{tenant}.{name}"),
            tenant: tenant.to_owned(),
            bucket: [tenant.as_bytes()[0]; 32],
            asked: "m".to_owned(),
            text: name.to_owned(),
            vector: to_bytes(vector),
            created_at: 1,
            expires_at: 100,
        }
    }

    async fn found(index: &Index, tenant: &str, vector: &[f32], threshold: f64) -> Vec<String> {
        let close = index.search(&[tenant.as_bytes()[0]; 32], vector, threshold, 0).await;
        close.into_iter().map(|close| close.entry.text.clone()).collect()
    }

    #[tokio::test]
    async fn the_closest_come_first_and_only_of_their_group() {
        let index = Index::default();
        for number in 0..200_u16 {
            let angle = f32::from(number) / 200.0;
            index.insert(row("a", &number.to_string(), &[angle.cos(), angle.sin()]), 1_000);
        }
        index.insert(row("b", "other", &[1.0, 0.0]), 1_000);
        assert_eq!(found(&index, "a", &[1.0, 0.0], 0.9999).await, ["0", "1", "2"]);
        assert_eq!(found(&index, "a", &[1.0, 0.0], 0.0).await.len(), MAX_CLOSE);
        assert_eq!(found(&index, "b", &[1.0, 0.0], 0.9).await, ["other"]);
        assert!(found(&index, "c", &[1.0, 0.0], 0.0).await.is_empty());
        // Expired ones are passed over before they are swept.
        assert!(index.search(&[b'b'; 32], &[1.0, 0.0], 0.0, 100).await.is_empty());
        index.sweep(100);
        assert_eq!(index.len(), 0);
        assert_eq!(index.inner().bytes, 0);
    }

    #[test]
    fn what_is_forgotten_is_given_back() {
        let index = Index::default();
        for number in 0..PIECE {
            index.insert(row("a", &number.to_string(), &[1.0; 8]), 1_000);
        }
        for number in 0..PIECE - 1 {
            index.forget(&format!("a.{number}"));
            let inner = index.inner();
            let vectors = &inner.groups[&[b'a'; 32]][0].vectors;
            assert!(vectors.capacity() <= 2 * vectors.len() + 8, "{number}: {}", vectors.capacity());
        }
    }

    #[tokio::test]
    async fn the_oldest_of_a_tenant_go_and_others_stay() {
        let index = Index::default();
        index.insert(row("b", "theirs", &[1.0]), 3);
        for name in ["one", "two", "three", "four", "five"] {
            index.insert(row("a", name, &[1.0]), 3);
        }
        let mut left = found(&index, "a", &[1.0], 0.9).await;
        left.sort();
        assert_eq!(left, ["five", "four", "three"]);
        assert_eq!(found(&index, "b", &[1.0], 0.9).await, ["theirs"]);
        // What is known is not taken twice; a newer one takes its place.
        index.insert(row("a", "five", &[1.0]), 3);
        index.insert(QuestionRow { created_at: 2, vector: to_bytes(&[-1.0]), ..row("a", "five", &[1.0]) }, 3);
        assert_eq!(found(&index, "a", &[-1.0], 0.9).await, ["five"]);
        index.clear(None, Some("a.five"));
        index.clear(Some("none"), None);
        assert_eq!(index.len(), 3);
        index.clear(Some("m"), None);
        let inner = index.inner();
        assert_eq!((inner.places.len(), inner.bytes, inner.groups.len(), inner.tenants.len()), (0, 0, 0, 0));
    }

    #[test]
    fn only_vectors_with_a_direction_are_normalised() {
        assert_eq!(normalised(vec![3.0, 4.0]), Some(vec![0.6, 0.8]));
        for none in [vec![], vec![0.0, 0.0], vec![f32::NAN, 1.0], vec![f32::INFINITY]] {
            assert_eq!(normalised(none), None);
        }
        assert_eq!(from_bytes(&[0, 0, 0]), None);
    }
}
