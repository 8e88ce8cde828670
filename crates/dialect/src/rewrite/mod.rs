//! What an operator changes in requests, whatever their dialect: how much to reason, system text, tools, the limit of the
//! answer. In the canonical form it is done here; in bytes that stay in their dialect by [`crate::Dialect::rewrite`], which
//! leaves everything else as it came.

pub(crate) mod body;

use std::sync::Arc;

use crate::ir::{BlockKind, ChatRequest, ReasoningAmount, Tool, ToolChoice, ToolKind};

/// Changes of a request.
#[derive(Clone, Default)]
pub struct Rewrite {
    /// How much to reason.
    pub reasoning: Option<ReasoningEdit>,
    /// System text.
    pub system: SystemEdit,
    /// Most tokens of answer; a lower limit of the client stays.
    pub max_output_tokens: Option<u64>,
    /// The names of tools that are passed on.
    pub keeps_tool: Option<ToolTest>,
}

/// Whether a tool of this name is passed on.
pub type ToolTest = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A change of how much to reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReasoningEdit {
    /// Nothing is said of it.
    Strip,
    /// This much.
    Set(ReasoningAmount),
}

/// A change of the system text. Empty texts are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemEdit {
    /// Takes the place of the client's.
    pub replace: Option<String>,
    /// Comes before it.
    pub before: Option<String>,
    /// Comes behind it.
    pub after: Option<String>,
}

impl SystemEdit {
    /// Whether nothing is changed.
    pub const fn is_empty(&self) -> bool {
        self.replace.is_none() && self.before.is_none() && self.after.is_none()
    }

    /// All of it as one text, for requests that have none of their own.
    pub(crate) fn alone(&self) -> String {
        let parts = [&self.before, &self.replace, &self.after];
        parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("\n\n")
    }
}

impl Rewrite {
    /// Whether nothing is changed.
    pub const fn is_empty(&self) -> bool {
        self.reasoning.is_none()
            && self.system.is_empty()
            && self.max_output_tokens.is_none()
            && self.keeps_tool.is_none()
    }

    /// Whether a tool of this name is passed on.
    pub(crate) fn keeps(&self, name: &str) -> bool {
        self.keeps_tool.as_ref().is_none_or(|keeps| keeps(name))
    }

    /// Makes the changes in the canonical form.
    pub fn apply(&self, request: &mut ChatRequest) {
        match &self.reasoning {
            None => {}
            Some(ReasoningEdit::Strip) => request.reasoning = Default::default(),
            Some(ReasoningEdit::Set(amount)) => request.reasoning.amount = amount.clone(),
        }
        self.apply_system(request);
        if let Some(most) = self.max_output_tokens {
            request.max_output_tokens = Some(request.max_output_tokens.map_or(most, |asked| asked.min(most)));
        }
        if self.keeps_tool.is_some() {
            self.apply_tools(request);
        }
    }

    fn apply_system(&self, request: &mut ChatRequest) {
        let text = |text: &String| BlockKind::Text(text.clone()).into();
        let SystemEdit { replace, before, after } = &self.system;
        if let Some(replace) = replace {
            request.system = vec![text(replace)];
        }
        if let Some(before) = before {
            request.system.insert(0, text(before));
        }
        request.system.extend(after.as_ref().map(text));
    }

    fn apply_tools(&self, request: &mut ChatRequest) {
        request.tools.retain(|tool| self.keeps(&name_of(tool)));
        if request.tools.is_empty() {
            request.tool_choice = None;
            request.parallel_tool_calls = None;
            return;
        }
        let is_gone = match &mut request.tool_choice {
            Some(ToolChoice::Named(name)) => !self.keeps(name),
            Some(ToolChoice::WebSearch) => {
                !request.tools.iter().any(|tool| matches!(tool.kind, ToolKind::WebSearch(_)))
            }
            Some(ToolChoice::Allowed { names, .. }) => {
                names.retain(|name| self.keeps(name));
                names.is_empty()
            }
            Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Required) | None => false,
        };
        if is_gone {
            request.tool_choice = None;
        }
    }
}

/// The name by which a tool is kept; one that has none goes by its kind.
fn name_of(tool: &Tool) -> String {
    match (&tool.kind, tool.name()) {
        (_, Some(name)) => name.to_owned(),
        (ToolKind::WebSearch(_), None) => "web_search".to_owned(),
        (ToolKind::Opaque { raw, .. }, None) => body::name(raw.get().as_bytes(), &[]),
        (ToolKind::Function { .. } | ToolKind::Custom { .. }, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Block, Effort};

    fn function(name: &str) -> Tool {
        let kind = ToolKind::Function { name: name.into(), description: None, schema: None, strict: None };
        Tool::at("", kind)
    }

    #[test]
    fn the_canonical_form_is_changed() {
        let mut request = ChatRequest {
            system: vec![Block::from(BlockKind::Text("own".into()))],
            tools: vec![function("read_file"), function("write_file")],
            tool_choice: Some(ToolChoice::Named("write_file".into())),
            max_output_tokens: Some(500),
            ..ChatRequest::default()
        };
        let rewrite = Rewrite {
            reasoning: Some(ReasoningEdit::Set(ReasoningAmount::Effort(Effort::Low))),
            system: SystemEdit { replace: None, before: Some("before".into()), after: Some("after".into()) },
            max_output_tokens: Some(100),
            keeps_tool: Some(Arc::new(|name| name.starts_with("read_"))),
        };
        rewrite.apply(&mut request);
        let texts = |request: &ChatRequest| -> Vec<String> {
            let text = |block: &Block| match &block.kind {
                BlockKind::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            };
            request.system.iter().map(text).collect()
        };
        assert_eq!(texts(&request), ["before", "own", "after"]);
        assert_eq!(request.max_output_tokens, Some(100));
        assert_eq!(request.tools.iter().filter_map(Tool::name).collect::<Vec<_>>(), ["read_file"]);
        assert_eq!(request.tool_choice, None);
        assert_eq!(request.reasoning.amount, ReasoningAmount::Effort(Effort::Low));
        let replaced = Rewrite {
            reasoning: Some(ReasoningEdit::Strip),
            system: SystemEdit { replace: Some("ours".into()), ..SystemEdit::default() },
            max_output_tokens: Some(1_000),
            keeps_tool: Some(Arc::new(|_| false)),
        };
        replaced.apply(&mut request);
        assert_eq!(texts(&request), ["ours"]);
        assert_eq!((request.max_output_tokens, request.tools.len()), (Some(100), 0));
        assert_eq!(request.reasoning.amount, ReasoningAmount::Default);
    }
}
