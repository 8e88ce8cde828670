//! What is answered, whatever the dialect.

use serde_json::{Value, json};

use crate::{
    ask::{Ask, Choice, Format, Tool, Wish},
    schema,
    script::{Arguments, Content, Ending, Script, Thinking},
};

const LOREM: &str = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut \
    labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut \
    aliquip ex ea commodo consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore \
    eu fugiat nulla pariatur. ";
/// 400 characters: 100 tokens by the usual estimate.
const LOREM_LENGTH: usize = 400;
/// A text is cut into at most so many pieces unless the script wants more.
const MAX_PIECES: usize = 2000;
/// Calls of one answer.
const MAX_CALLS: usize = 64;
const REFUSAL: &str = "I am sorry, but I cannot help with that.";
const THOUGHTS: &str = "The user wants an answer. I will think about it for a moment and then give one.";

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) thoughts: Option<Thoughts>,
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: Finish,
    pub(crate) usage: Tokens,
}

/// What was thought before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thoughts {
    /// For all to read.
    Shown(&'static str),
    /// Without their text.
    Hidden,
    /// Encrypted as a whole.
    Redacted,
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
    /// The text says that there will be no answer.
    Refused,
    /// A filter broke the text off.
    Filtered,
    /// A filter did not let the prompt through.
    Blocked,
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
        let calls = if script.ending == Ending::Normal { calls(script, ask) } else { Vec::new() };
        let (mut text, mut finish) = match script.ending {
            Ending::Normal if calls.is_empty() => (text(script, ask), Finish::Stop),
            Ending::Normal => (String::new(), Finish::Tools),
            Ending::Refused => (REFUSAL.to_owned(), Finish::Refused),
            Ending::Filtered => {
                let text = text(script, ask);
                let half = even(&text, 2).first().copied().unwrap_or_default();
                (half.to_owned(), Finish::Filtered)
            }
            Ending::Blocked => (String::new(), Finish::Blocked),
        };
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
        let thoughts = if finish == Finish::Blocked { None } else { thoughts(script.thinking, ask.wish) };
        let thought = if thoughts.is_some() { tokens(THOUGHTS) } else { 0 };
        let written: u64 = tokens(&text) + calls.iter().map(|call| 8 + tokens(&call.arguments)).sum::<u64>();
        let prompt = ask.prompt_tokens();
        let usage = Tokens {
            prompt,
            cached: if script.cached { prompt / 2 } else { 0 },
            output: thought + written,
            reasoning: thought,
        };
        Self { thoughts, text, calls, finish, usage }
    }

    /// The thoughts that may be read.
    pub(crate) fn shown(&self) -> Option<&'static str> {
        match self.thoughts? {
            Thoughts::Shown(text) => Some(text),
            Thoughts::Hidden | Thoughts::Redacted => None,
        }
    }

    /// The text as a stream shows it.
    pub(crate) fn pieces(&self, chunks: Option<usize>) -> Vec<&str> {
        match chunks {
            Some(count) => even(&self.text, count),
            None => words(&self.text),
        }
    }
}

impl Call {
    /// The arguments as a stream shows them: in up to three fragments unless the script wants another number of them,
    /// cut without regard to what they mean.
    pub(crate) fn fragments(&self, script: &Script) -> Vec<&str> {
        even(&self.arguments, script.fragments.unwrap_or(3))
    }
}

/// Tokens of a text by the usual estimate.
fn tokens(text: &str) -> u64 {
    text.chars().count().div_ceil(4) as u64
}

fn thoughts(thinking: Thinking, wish: Wish) -> Option<Thoughts> {
    match (thinking, wish) {
        (Thinking::Never, _) | (_, Wish::Off) | (Thinking::AsAsked, Wish::Unsaid) => None,
        (Thinking::Redacted, _) => Some(Thoughts::Redacted),
        (Thinking::Hidden, _) | (_, Wish::Hidden) => Some(Thoughts::Hidden),
        (Thinking::Always | Thinking::AsAsked, Wish::Unsaid | Wish::Shown) => Some(Thoughts::Shown(THOUGHTS)),
    }
}

fn calls(script: &Script, ask: &Ask) -> Vec<Call> {
    let scripted = script.tools.or(script.tool.as_ref().map(|_| 1));
    let wanted = match &ask.choice {
        Choice::Never => 0,
        Choice::Auto if ask.tool_result.is_some() => 0,
        Choice::Auto => scripted.unwrap_or(0),
        Choice::Any | Choice::Named(_) => scripted.unwrap_or(1).max(1),
    };
    let wanted = if ask.one_call { wanted.min(1) } else { wanted };
    // A word cannot hold a '-'.
    let named = |tool: &&Tool| match (&ask.choice, &script.tool) {
        (Choice::Named(name), _) => tool.name == *name,
        (_, Some(name)) => tool.name.replace('-', "_") == *name,
        (_, None) => true,
    };
    let tools: Vec<&Tool> = ask.tools.iter().filter(named).collect();
    let given = if script.arguments == Arguments::Given { objects(&ask.last_text) } else { Vec::new() };
    let mut given = given.into_iter();
    let call = |tool: &&Tool| Call {
        name: tool.name.clone(),
        arguments: match (script.arguments, given.next()) {
            (Arguments::None, _) => String::new(),
            (_, Some(object)) => object,
            (_, None) if tool.free_text => "sample".to_owned(),
            (_, None) => schema::sample(&tool.schema).to_string(),
        },
        free_text: tool.free_text,
    };
    tools.iter().cycle().take(if tools.is_empty() { 0 } else { wanted }).map(call).collect()
}

/// The JSON objects in a text, one after the other, as they are written there but in one line.
fn objects(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{').filter(|_| found.len() < MAX_CALLS) {
        rest = &rest[at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let end = match values.next() {
            Some(Ok(_)) => {
                // Line ends stand between tokens only; they would end lines and events that hold the object.
                found.push(rest[..values.byte_offset()].replace(['\n', '\r'], " "));
                values.byte_offset()
            }
            Some(Err(_)) | None => 1,
        };
        rest = &rest[end..];
    }
    found
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
    fn arguments_are_taken_from_what_the_user_said() {
        for (text, expected) in [
            ("", vec![]),
            ("call {", vec![]),
            ("{\r\n\"a\": \"\\n\"}", vec!["{  \"a\": \"\\n\"}"]),
            (
                r#"read {"path": "a}{b"} and {"n":1,"o":{}} {bad} {}"#,
                vec![r#"{"path": "a}{b"}"#, r#"{"n":1,"o":{}}"#, "{}"],
            ),
        ] {
            assert_eq!(objects(text), expected, "{text}");
        }
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
        assert_eq!(names("tool-y", &ask), [r#"y{"a":1}"#]);
        assert_eq!(names("tool-z", &ask).len(), 0);
        let given = Ask { last_text: r#"do {"a":2} then {"a": 3}"#.to_owned(), ..ask.clone() };
        assert_eq!(names("tools-3-args", &given), [r#"x{"a":2}"#, r#"y{"a": 3}"#, r#"x{"a":1}"#]);
        assert_eq!(names("tools-refusal", &ask).len(), 0);
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
