//! Events as text, for tests.

use super::{BlockHead, Delta, EventSink, StreamError, StreamEvent};

/// Keeps events as one line each.
#[derive(Default)]
pub(crate) struct Lines(pub(crate) Vec<String>);

impl EventSink for Lines {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.0.push(match event {
            StreamEvent::Start { id, model } => format!("start {id} {model}"),
            StreamEvent::BlockStart { index, block } => match block {
                BlockHead::ToolCall { id, name } => format!("{index} call {id} {name}"),
                BlockHead::RedactedThinking { data } => format!("{index} redacted {data}"),
                BlockHead::Thinking { item: None } => format!("{index} Thinking"),
                BlockHead::Thinking { item: Some(item) } => format!("{index} Thinking {item}"),
                BlockHead::WebSearch(search) => {
                    format!("{index} search {:?} {:?}", search.queries, search.results)
                }
                other => format!("{index} {other:?}"),
            },
            StreamEvent::Delta { index, delta } => match delta {
                Delta::Text(text) => format!("{index} + {text}"),
                Delta::Thinking(text) => format!("{index} ~ {text}"),
                Delta::Signature(text) => format!("{index} signed {text}"),
                Delta::ToolArgs(text) => format!("{index} args {text}"),
                Delta::Citation(citation) => format!("{index} cites {:?}", citation.url),
                Delta::Logprobs(tokens) => {
                    let tokens: Vec<_> = tokens.iter().map(|token| token.token.as_str()).collect();
                    format!("{index} tokens {tokens:?}")
                }
            },
            StreamEvent::BlockStop { index } => format!("{index} stop"),
            StreamEvent::Usage(usage) => {
                format!("usage {:?} {:?}", usage.input_total(), usage.output_total)
            }
            StreamEvent::ServiceTier(tier) => format!("tier {tier}"),
            StreamEvent::Finish { reason, stop_sequence } => format!("finish {reason:?} {stop_sequence:?}"),
            StreamEvent::Error(error) => {
                format!("error {:?} {}", error.status, error.code.unwrap_or(error.message))
            }
            StreamEvent::Ping => "ping".to_owned(),
        });
        Ok(())
    }
}
