//! What is answered, whatever the dialect.

use serde_json::json;

use crate::{
    ask::{Ask, Choice, Format, Tool},
    schema,
    script::{Content, Script},
};

const LOREM: &str = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut \
    labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut \
    aliquip ex ea commodo consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore \
    eu fugiat nulla pariatur. ";
/// 400 characters: 100 tokens by the usual estimate.
const LOREM_LENGTH: usize = 400;
/// A text is cut into at most so many pieces unless the script wants more.
const MAX_PIECES: usize = 2000;
const THOUGHTS: &str = "The user wants an answer. I will think about it for a moment and then give one.";

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) reasoning: Option<&'static str>,
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: Finish,
    pub(crate) usage: Tokens,
}

/// One tool call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON text, free text for such tools; empty when the script says so.
    pub(crate) arguments: String,
    pub(crate) free_text: bool,
}

/// Why the answer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    StopSequence(String),
    Length,
    Tools,
}

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Everything read, from the cache or not.
    pub(crate) prompt: u64,
    /// Of these, read from the cache.
    pub(crate) cached: u64,
    /// Everything written, thoughts included.
    pub(crate) output: u64,
    /// Of these, thoughts.
    pub(crate) reasoning: u64,
}

impl Reply {
    /// Decides what to answer.
    pub(crate) fn compose(script: &Script, ask: &Ask) -> Self {
        let calls = calls(script, ask);
        let mut text = if calls.is_empty() { text(script, ask) } else { String::new() };
        let mut finish = if calls.is_empty() { Finish::Stop } else { Finish::Tools };
        let stop = ask.stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop))).min();
        if let Some((at, stop)) = stop {
            text.truncate(at);
            finish = Finish::StopSequence(stop.clone());
        }
        if let Some(limit) = ask.max_tokens {
            let characters = usize::try_from(limit.saturating_mul(4)).unwrap_or(usize::MAX);
            if let Some((at, _)) = text.char_indices().nth(characters) {
                text.truncate(at);
                finish = Finish::Length;
            }
        }
        let reasoning = script.reasoning.then_some(THOUGHTS);
        let thought = tokens(reasoning.unwrap_or_default());
        let written: u64 = tokens(&text) + calls.iter().map(|call| 8 + tokens(&call.arguments)).sum::<u64>();
        let prompt = ask.prompt_tokens();
        let usage = Tokens {
            prompt,
            cached: if script.cached { prompt / 2 } else { 0 },
            output: thought + written,
            reasoning: thought,
        };
        Self { reasoning, text, calls, finish, usage }
    }

    /// The text as a stream shows it.
    pub(crate) fn pieces(&self, chunks: Option<usize>) -> Vec<&str> {
        match chunks {
            Some(count) => even(&self.text, count),
            None => words(&self.text),
        }
    }
}

/// Tokens of a text by the usual estimate.
fn tokens(text: &str) -> u64 {
    text.chars().count().div_ceil(4) as u64
}

fn calls(script: &Script, ask: &Ask) -> Vec<Call> {
    let wanted = match &ask.choice {
        Choice::Never => 0,
        Choice::Auto if ask.tool_result.is_some() => 0,
        Choice::Auto => script.tools.unwrap_or(0),
        Choice::Any | Choice::Named(_) => script.tools.unwrap_or(1).max(1),
    };
    let wanted = if ask.one_call { wanted.min(1) } else { wanted };
    let named = |tool: &&Tool| match &ask.choice {
        Choice::Named(name) => tool.name == *name,
        _ => true,
    };
    let tools: Vec<&Tool> = ask.tools.iter().filter(named).collect();
    let call = |tool: &&Tool| Call {
        name: tool.name.clone(),
        arguments: if script.no_arguments {
            String::new()
        } else if tool.free_text {
            "sample".to_owned()
        } else {
            schema::sample(&tool.schema).to_string()
        },
        free_text: tool.free_text,
    };
    tools.iter().cycle().take(if tools.is_empty() { 0 } else { wanted }).map(call).collect()
}

fn text(script: &Script, ask: &Ask) -> String {
    match &ask.format {
        Format::Text => {}
        Format::Object => return json!({ "answer": plain(script, ask) }).to_string(),
        Format::Schema(schema) => return schema::sample(schema).to_string(),
    }
    plain(script, ask)
}

fn plain(script: &Script, ask: &Ask) -> String {
    match (script.content, &ask.tool_result) {
        (Content::Echo, Some(result)) => format!("The tool said: {result}"),
        (Content::Echo, None) => ask.last_text.clone(),
        (Content::Lorem, _) => match script.chunks {
            Some(count) => LOREM.split_inclusive(' ').cycle().take(count).collect(),
            None => LOREM.chars().cycle().take(LOREM_LENGTH).collect(),
        },
        (Content::Size(size), _) => LOREM.chars().cycle().take(size).collect(),
        (Content::Image, _) => match ask.images {
            1 => "I see 1 image.".to_owned(),
            images => format!("I see {images} images."),
        },
        (Content::Empty, _) => String::new(),
    }
}

/// Arguments come in up to three fragments, cut without regard to what they mean.
pub(crate) fn thirds(text: &str) -> impl Iterator<Item = &str> {
    let cut = |at: usize| (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let (first, second) = (cut(text.len() / 3), cut(text.len() * 2 / 3));
    [&text[..first], &text[first..second], &text[second..]].into_iter().filter(|piece| !piece.is_empty())
}

/// Words with the space behind them, several in a piece where there are very many.
fn words(text: &str) -> Vec<&str> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    if words.len() <= MAX_PIECES { words } else { even(text, MAX_PIECES) }
}

/// So many pieces of about equal length; fewer when there are fewer characters. One piece per word if that fits.
fn even(text: &str, count: usize) -> Vec<&str> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    if words.len() == count {
        return words;
    }
    let mut pieces = Vec::with_capacity(count);
    let mut start = 0;
    for index in 1..=count {
        let mut end = text.len() * index / count;
        while !text.is_char_boundary(end) {
            end += 1;
        }
        if end > start {
            pieces.push(&text[start..end]);
            start = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(model: &str, ask: &Ask) -> Reply {
        Reply::compose(&Script::parse(model).unwrap(), ask)
    }

    #[test]
    fn sizes_and_counts_are_exact() {
        let ask = Ask::default();
        assert_eq!(reply("lorem", &ask).usage.output, 100);
        assert_eq!(reply("size-1k", &ask).text.len(), 1024);
        for (model, pieces) in [("chunks-100", 100), ("chunks-7-size-1k", 7), ("chunks-1", 1)] {
            let reply = reply(model, &ask);
            let script = Script::parse(model).unwrap();
            let found = reply.pieces(script.chunks);
            assert_eq!(found.len(), pieces, "{model}");
            assert_eq!(found.concat(), reply.text);
        }
    }

    #[test]
    fn pieces_keep_characters_whole_and_stay_few() {
        let text = "é你😀".repeat(50_000);
        let ask = Ask { last_text: text.clone(), ..Ask::default() };
        let reply = reply("echo", &ask);
        assert_eq!(reply.pieces(None).concat(), text);
        assert!(reply.pieces(Some(3)).len() == 3 && reply.pieces(None).len() <= MAX_PIECES);
        let long = Ask { last_text: "a ".repeat(50_000), ..Ask::default() };
        assert!(self::reply("echo", &long).pieces(None).len() <= MAX_PIECES);
    }

    #[test]
    fn limits_and_stop_sequences_end_the_text() {
        let mut ask = Ask { last_text: "one two three four".to_owned(), ..Ask::default() };
        ask.stops = vec!["four".to_owned(), "thr".to_owned()];
        assert_eq!(reply("echo", &ask).finish, Finish::StopSequence("thr".to_owned()));
        assert_eq!(reply("echo", &ask).text, "one two ");
        ask.max_tokens = Some(1);
        assert_eq!((reply("echo", &ask).text.as_str(), reply("echo", &ask).finish), ("one ", Finish::Length));
        ask.max_tokens = Some(0);
        assert_eq!(reply("echo", &ask).text, "");
    }

    #[test]
    fn tools_are_called_when_they_should_be() {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            schema: json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}),
            free_text: false,
        };
        let ask = Ask { tools: vec![tool("x"), tool("y")], ..Ask::default() };
        let names = |model: &str, ask: &Ask| -> Vec<String> {
            reply(model, ask).calls.into_iter().map(|call| call.name + &call.arguments).collect()
        };
        assert_eq!(names("tools", &ask), [r#"x{"a":1}"#]);
        assert_eq!(names("tools-3", &ask), [r#"x{"a":1}"#, r#"y{"a":1}"#, r#"x{"a":1}"#]);
        assert_eq!(names("tools-noargs", &ask), ["x"]);
        assert_eq!(names("tools-2", &Ask { one_call: true, ..ask.clone() }).len(), 1);
        assert_eq!(names("echo", &ask).len(), 0);
        assert_eq!(names("echo", &Ask { choice: Choice::Any, ..ask.clone() }), [r#"x{"a":1}"#]);
        assert_eq!(
            names("echo", &Ask { choice: Choice::Named("y".to_owned()), ..ask.clone() }),
            [r#"y{"a":1}"#]
        );
        assert_eq!(names("tools", &Ask { choice: Choice::Never, ..ask.clone() }).len(), 0);
        let answered = Ask { tool_result: Some("42".to_owned()), ..ask };
        assert_eq!(reply("tools", &answered).text, "The tool said: 42");
        assert_eq!(reply("tools", &answered).finish, Finish::Stop);
    }
}
