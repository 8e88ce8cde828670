//! Names of tools as the target accepts them, and back.

use std::collections::HashMap;

use crate::{
    NameRule,
    ids::hash_hex,
    ir::{BlockKind, ChatRequest, ToolChoice, ToolKind},
};

/// Digits of the hash that keeps shortened names apart.
const HASH_DIGITS: usize = 8;

/// Names that had to be changed: as the client wrote them, and as the upstream gets them. A request may have thousands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NameMap {
    /// By the client's.
    forth: HashMap<String, String>,
    /// By the upstream's.
    back: HashMap<String, String>,
}

impl NameMap {
    /// The names of a request that a target with this rule would refuse.
    pub(crate) fn of(request: &ChatRequest, rule: NameRule) -> Self {
        let mut map = Self::default();
        let defined = request.tools.iter().filter_map(|tool| match &tool.kind {
            ToolKind::Function { name, .. } | ToolKind::Custom { name, .. } => Some(name),
            ToolKind::WebSearch(_) | ToolKind::Opaque { .. } => None,
        });
        let called = request.turns.iter().flat_map(|turn| &turn.blocks).filter_map(|block| {
            if let BlockKind::ToolCall(call) = &block.kind { Some(&call.name) } else { None }
        });
        for name in defined.chain(called) {
            if !rule.accepts(name) && !name.trim().is_empty() && !map.forth.contains_key(name.as_str()) {
                map.put(name, rule.fit(name));
            }
        }
        map
    }

    fn put(&mut self, client: &str, upstream: String) {
        self.back.insert(upstream.clone(), client.to_owned());
        self.forth.insert(client.to_owned(), upstream);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.forth.is_empty()
    }

    /// Puts the target's names into a request.
    pub(crate) fn apply(&self, request: &mut ChatRequest) {
        for tool in &mut request.tools {
            if let ToolKind::Function { name, .. } | ToolKind::Custom { name, .. } = &mut tool.kind {
                self.forth(name);
            }
        }
        match &mut request.tool_choice {
            Some(ToolChoice::Named(name)) => self.forth(name),
            Some(ToolChoice::Allowed { names, .. }) => names.iter_mut().for_each(|name| self.forth(name)),
            None
            | Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::WebSearch) => {}
        }
        for block in request.turns.iter_mut().flat_map(|turn| &mut turn.blocks) {
            if let BlockKind::ToolCall(call) = &mut block.kind {
                self.forth(&mut call.name);
            }
        }
    }

    /// The client's name for one of an answer.
    pub(crate) fn back<'a>(&'a self, name: &'a str) -> &'a str {
        self.back.get(name).map_or(name, String::as_str)
    }

    fn forth(&self, name: &mut String) {
        if let Some(upstream) = self.forth.get(name.as_str()) {
            name.clone_from(upstream);
        }
    }
}

impl NameRule {
    /// Whether a name may be sent as it is.
    pub fn accepts(&self, name: &str) -> bool {
        !name.is_empty()
            && name.len() <= self.max
            && name.chars().all(|c| self.allows(c))
            && !(self.letter_first && name.starts_with(|c: char| !c.is_ascii_alphabetic() && c != '_'))
    }

    fn allows(&self, c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_' || self.others.contains(c)
    }

    /// A name that is accepted, different for different names.
    fn fit(&self, name: &str) -> String {
        let mut fitted: String = name.chars().map(|c| if self.allows(c) { c } else { '_' }).collect();
        if self.letter_first && fitted.starts_with(|c: char| !c.is_ascii_alphabetic() && c != '_') {
            fitted.insert(0, '_');
        }
        // What was replaced or cut off still tells names apart.
        fitted.truncate(self.max - HASH_DIGITS - 1);
        fitted.push('_');
        fitted.push_str(&hash_hex(name)[..HASH_DIGITS]);
        fitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: NameRule = NameRule { max: 64, others: "-", letter_first: false };
    const FIRST: NameRule = NameRule { max: 64, others: "-.:", letter_first: true };

    #[test]
    fn names_are_fitted_and_come_back() {
        for name in ["mcp.server/read file", "größe", "1st", &"x".repeat(200), "a b", "a/b"] {
            for rule in [PLAIN, FIRST] {
                if rule.accepts(name) {
                    continue;
                }
                let fitted = rule.fit(name);
                assert!(rule.accepts(&fitted), "{name} became {fitted}");
                let mut map = NameMap::default();
                map.put(name, fitted.clone());
                assert_eq!(map.back(&fitted), name);
            }
        }
        assert_ne!(PLAIN.fit("a b"), PLAIN.fit("a/b"));
        assert!(PLAIN.accepts("read-file_2") && !PLAIN.accepts("") && FIRST.accepts("a.b:c"));
        assert!(PLAIN.accepts("1st") && !FIRST.accepts("1st"));
    }
}
