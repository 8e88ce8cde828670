//! What the two sides of a stream have no word for.

use std::borrow::Cow;

use crate::ir::{Loss, LossAction, loss, quiet};

/// Most places that are named.
const MAX: usize = 32;

/// Losses of an answer on its way, each place once. Nothing is allocated for a place that is known, and the paths are those
/// of the same losses in whole answers.
#[derive(Debug, Default)]
pub(crate) struct StreamLosses {
    /// Blocks, if it is one, and the member of them or of the answer.
    places: Vec<(Option<u32>, &'static str)>,
    list: Vec<Loss>,
}

impl StreamLosses {
    /// What becomes of a block, or of a member of it (`.citations`). A client would have been told of it if the answer
    /// were whole.
    pub(crate) fn block(&mut self, index: u32, member: &'static str, action: LossAction) {
        self.add((Some(index), member), |path| loss(path, action));
    }

    /// The same for something harmless.
    pub(crate) fn quiet_block(&mut self, index: u32, member: &'static str, action: LossAction) {
        self.add((Some(index), member), |path| quiet(path, action));
    }

    /// What becomes of something that belongs to no block.
    pub(crate) fn answer(&mut self, path: &'static str, action: LossAction) {
        self.add((None, path), |path| loss(path, action));
    }

    /// The same for something harmless.
    pub(crate) fn quiet_answer(&mut self, path: &'static str, action: LossAction) {
        self.add((None, path), |path| quiet(path, action));
    }

    /// All so far.
    pub(crate) fn take(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.list)
    }

    fn add(&mut self, place: (Option<u32>, &'static str), named: impl FnOnce(Cow<'static, str>) -> Loss) {
        if self.places.contains(&place) || self.places.len() > MAX {
            return;
        }
        self.places.push(place);
        self.list.push(match place {
            // There are more than can be named.
            _ if self.places.len() > MAX => quiet("content", LossAction::Dropped),
            (Some(index), member) => named(format!("content[{index}]{member}").into()),
            (None, path) => named(path.into()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_named_once_and_not_without_end() {
        let mut losses = StreamLosses::default();
        for index in [3, 3, 4] {
            losses.quiet_block(index, ".citations", LossAction::Dropped);
        }
        losses.block(3, "", LossAction::Mapped);
        losses.answer("tool_calls", LossAction::Dropped);
        let paths: Vec<_> = losses.list.iter().map(|loss| (&*loss.path, loss.silent)).collect();
        assert_eq!(
            paths,
            [
                ("content[3].citations", true),
                ("content[4].citations", true),
                ("content[3]", false),
                ("tool_calls", false)
            ]
        );
        (0..1000).for_each(|index| losses.block(index, "", LossAction::Dropped));
        let all = losses.take();
        assert_eq!((all.len(), &*all[MAX].path), (MAX + 1, "content"));
    }
}
