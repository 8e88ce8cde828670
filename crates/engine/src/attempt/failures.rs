//! Which targets of a combo failed so far.

use super::Failed;

/// The last failure of each target that failed, in the order of the targets. Nothing is kept for those that were not asked.
#[derive(Default)]
pub(super) struct Failures(Vec<(usize, Failed)>);

impl Failures {
    /// The target at `place` failed.
    pub(super) fn note(&mut self, place: usize, failed: Failed) {
        match self.find(place) {
            Ok(at) => self.0[at].1 = failed,
            Err(at) => self.0.insert(at, (place, failed)),
        }
    }

    /// How it failed last.
    pub(super) fn of(&self, place: usize) -> Option<&Failed> {
        self.find(place).ok().map(|at| &self.0[at].1)
    }

    /// The same, which is then forgotten.
    pub(super) fn take(&mut self, place: usize) -> Option<Failed> {
        self.find(place).ok().map(|at| self.0.remove(at).1)
    }

    /// All.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Failed> {
        self.0.iter().map(|(_, failed)| failed)
    }

    /// All, which are then forgotten.
    pub(super) fn take_all(&mut self) -> Vec<Failed> {
        self.0.drain(..).map(|(_, failed)| failed).collect()
    }

    fn find(&self, place: usize) -> Result<usize, usize> {
        self.0.binary_search_by_key(&place, |(known, _)| *known)
    }
}
