//! Calls without a result so far, for dialects whose results need not say which call they answer.

use std::collections::{HashMap, VecDeque};

use crate::ids;

/// The calls in their order. A request may have thousands of them.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls {
    /// Their ids; nothing where a call has its result.
    ids: Vec<Option<String>>,
    /// All before this one have theirs.
    oldest: usize,
    of_id: HashMap<String, VecDeque<usize>>,
    of_tool: HashMap<String, VecDeque<usize>>,
    invented_of_tool: HashMap<String, VecDeque<usize>>,
}

impl OpenCalls {
    /// Adds a call.
    pub(crate) fn push(&mut self, id: &str, tool: &str) {
        let at = self.ids.len();
        self.of_id.entry(id.to_owned()).or_default().push_back(at);
        self.of_tool.entry(tool.to_owned()).or_default().push_back(at);
        if ids::is_invented(id) {
            self.invented_of_tool.entry(tool.to_owned()).or_default().push_back(at);
        }
        self.ids.push(Some(id.to_owned()));
    }

    /// The place of the oldest.
    pub(crate) fn oldest(&mut self) -> Option<usize> {
        while matches!(self.ids.get(self.oldest), Some(None)) {
            self.oldest += 1;
        }
        (self.oldest < self.ids.len()).then_some(self.oldest)
    }

    /// The place of the oldest with this id.
    pub(crate) fn of_id(&mut self, id: &str) -> Option<usize> {
        first_open(self.of_id.get_mut(id)?, &self.ids)
    }

    /// The place of the oldest of a tool.
    pub(crate) fn of_tool(&mut self, tool: &str) -> Option<usize> {
        first_open(self.of_tool.get_mut(tool)?, &self.ids)
    }

    /// The place of the oldest of a tool that came without an id.
    pub(crate) fn invented_of_tool(&mut self, tool: &str) -> Option<usize> {
        first_open(self.invented_of_tool.get_mut(tool)?, &self.ids)
    }

    /// The id of the call at this place.
    pub(crate) fn id(&self, at: usize) -> Option<&str> {
        self.ids.get(at)?.as_deref()
    }

    /// Takes out the call at this place, and gives its id.
    pub(crate) fn take(&mut self, at: usize) -> Option<String> {
        self.ids.get_mut(at)?.take()
    }

    /// Takes out all calls with this id.
    pub(crate) fn close(&mut self, id: &str) {
        for at in self.of_id.remove(id).unwrap_or_default() {
            self.take(at);
        }
    }
}

fn first_open(queue: &mut VecDeque<usize>, ids: &[Option<String>]) -> Option<usize> {
    while let Some(&at) = queue.front() {
        if matches!(ids.get(at), Some(Some(_))) {
            return Some(at);
        }
        queue.pop_front();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_open_until_they_are_taken_or_closed() {
        let mut open = OpenCalls::default();
        for (id, tool) in [("a", "f"), ("b", "g"), ("a", "g"), ("c", "f")] {
            open.push(id, tool);
        }
        assert_eq!((open.oldest(), open.of_id("a"), open.of_tool("g")), (Some(0), Some(0), Some(1)));
        assert_eq!(open.take(0).as_deref(), Some("a"));
        assert_eq!((open.oldest(), open.of_id("a"), open.of_tool("f")), (Some(1), Some(2), Some(3)));
        open.close("b");
        assert_eq!((open.oldest(), open.of_id("b"), open.of_tool("g")), (Some(2), None, Some(2)));
        assert_eq!(open.id(2), Some("a"));
        // An id may come again.
        open.push("b", "g");
        assert_eq!(open.of_id("b"), Some(4));
        open.close("a");
        assert_eq!((open.oldest(), open.of_tool("g"), open.invented_of_tool("f")), (Some(3), Some(4), None));
        open.close("c");
        open.close("b");
        assert_eq!((open.oldest(), open.id(3)), (None, None));
    }
}
