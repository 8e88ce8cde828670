//! What a model's name asks the simulator to do.
//!
//! A name is words joined by `-` or `,`: `chunks-100`, `tools-2,slow-50ms`. `docs/simulator.md` lists them all.

use std::time::Duration;

/// Most text pieces of one stream.
const MAX_CHUNKS: usize = 10_000;
/// Largest answer that is held in memory.
const MAX_SIZE: u64 = 16 << 20;
/// Largest answer that is generated while it is sent.
const MAX_HUGE: u64 = 1 << 40;
/// Longest vectors.
const MAX_DIMENSIONS: usize = 4_096;
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// A parsed model name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) content: Content,
    /// Number of text pieces in a stream.
    pub(crate) chunks: Option<usize>,
    /// Before the head of the answer.
    pub(crate) delay: Duration,
    /// Between the head and the first event.
    pub(crate) ttft: Duration,
    /// Between two pieces.
    pub(crate) slow: Duration,
    /// Status of a refusal.
    pub(crate) error: Option<u16>,
    /// Its `Retry-After`.
    pub(crate) retry: Option<Duration>,
    /// Only so many first requests of a key are refused.
    pub(crate) fail_first: Option<u32>,
    pub(crate) fault: Option<Fault>,
    pub(crate) thinking: Thinking,
    /// Thoughts that led to calls must come back with their results, where the dialect does not demand it anyway.
    pub(crate) replay: bool,
    pub(crate) ending: Ending,
    /// Number of tool calls.
    pub(crate) tools: Option<usize>,
    /// The only tool that is called.
    pub(crate) tool: Option<String>,
    pub(crate) arguments: Arguments,
    /// Arguments of a call come in so many fragments.
    pub(crate) fragments: Option<usize>,
    /// Fragments of parallel calls take turns.
    pub(crate) interleaved: bool,
    pub(crate) usage: UsageScript,
    /// Half of the prompt was read from the provider's cache.
    pub(crate) cached: bool,
    pub(crate) framing: Framing,
    /// Lines of a stream end with CRLF.
    pub(crate) crlf: bool,
    /// Comments stand between the events of a stream.
    pub(crate) comments: bool,
    /// The data of an event takes several lines.
    pub(crate) multiline: bool,
    /// No space stands behind the colon of a field.
    pub(crate) tight: bool,
    /// Bytes of one write.
    pub(crate) writes: Option<usize>,
    /// Tokens a prompt may have.
    pub(crate) window: Option<u64>,
    /// What the vendor would ignore is refused as well.
    pub(crate) strict: bool,
    /// Length of vectors.
    pub(crate) dimensions: Option<usize>,
    /// Vectors are lists, also where something else was asked for.
    pub(crate) floats: bool,
    /// Vectors come in another order than their texts.
    pub(crate) jumbled: bool,
    /// Answer from memory without reading more of the request than it takes to choose the answer.
    pub(crate) bench: bool,
}

/// What the answer says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Content {
    /// The last text of the user.
    #[default]
    Echo,
    /// About 100 tokens, or as many words as there are pieces.
    Lorem,
    /// So many bytes.
    Size(usize),
    /// How many images came with the request.
    Image,
    /// Nothing.
    Empty,
}

/// Whether there are thoughts before the answer, and who may read them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Thinking {
    #[default]
    Never,
    /// For all to read, unless the request does not want any.
    Always,
    /// As the request wants it.
    AsAsked,
    /// Without their text.
    Hidden,
    /// Encrypted as a whole, where the dialect knows that.
    Redacted,
}

/// How the answer comes to an end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it should.
    #[default]
    Normal,
    /// The model says that it will not answer.
    Refused,
    /// A filter breaks the text off.
    Filtered,
    /// A filter does not let the prompt through.
    Blocked,
}

/// Where the arguments of tool calls come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// Made to fit the tool's schema.
    #[default]
    Sample,
    /// The JSON objects in the last text of the user.
    Given,
    /// There is no text of arguments at all.
    None,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No answer, ever.
    Hang,
    /// Nothing more after so many pieces, but the connection stays.
    Stall(usize),
    /// The connection breaks after so many pieces.
    Cut(usize),
    /// The stream ends in good order after so many pieces, but says nothing about the end of the answer.
    End(usize),
    /// That piece is not JSON.
    Malformed(usize),
    /// An error event after so many pieces.
    ErrorAfter(usize),
    /// Status 200 and an error in the body.
    ErrorIn200,
    /// The first event of the stream is an error.
    ErrorFirstEvent,
    /// A web page.
    Html,
    /// Bytes without meaning.
    Garbage,
    /// Status 200 and no body.
    Blank,
    /// A text of so many bytes, made while it is sent.
    Huge(u64),
}

/// Whether and when tokens are reported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum UsageScript {
    #[default]
    Normal,
    /// Not at all.
    Never,
    /// In a stream before the finish reason, asked for or not.
    Early,
    /// In a stream together with the finish reason and nowhere else.
    Finish,
    /// In a stream with every piece, as far as it has come.
    Every,
}

/// Stream or whole answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As the request says.
    #[default]
    AsAsked,
    /// Whole, whatever the request says.
    Whole,
    /// A stream, whatever the request says.
    Stream,
}

impl Script {
    /// Reads a model's name; the error says which word was not understood.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let mut content = None;
        let mut words = name.split(['-', ',']).peekable();
        while let Some(word) = words.next() {
            let mut argument = || words.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word {
                "echo" => set(&mut content, Content::Echo, word)?,
                "lorem" => set(&mut content, Content::Lorem, word)?,
                "image" => set(&mut content, Content::Image, word)?,
                "empty" => set(&mut content, Content::Empty, word)?,
                "size" => {
                    let size = size(argument()?, MAX_SIZE)?;
                    set(&mut content, Content::Size(usize::try_from(size).unwrap_or(usize::MAX)), word)?;
                }
                "chunks" => script.chunks = Some(count(argument()?, 1, MAX_CHUNKS)?),
                "delay" => script.delay = pause(argument()?)?,
                "ttft" => script.ttft = pause(argument()?)?,
                "slow" => script.slow = pause(argument()?)?,
                "retry" => script.retry = Some(pause(argument()?)?),
                "error" => match argument()? {
                    "in" if argument()? == "200" => set(&mut script.fault, Fault::ErrorIn200, word)?,
                    "first" if argument()? == "event" => {
                        set(&mut script.fault, Fault::ErrorFirstEvent, word)?;
                    }
                    "after" => {
                        let after = count(argument()?, 0, MAX_CHUNKS)?;
                        set(&mut script.fault, Fault::ErrorAfter(after), word)?;
                    }
                    status => {
                        let status = count(status, 400, 599)?;
                        set(&mut script.error, u16::try_from(status).unwrap_or(500), word)?;
                    }
                },
                "fail" => match argument()? {
                    "first" => {
                        let first = count(argument()?, 1, MAX_CHUNKS)?;
                        script.fail_first = Some(u32::try_from(first).unwrap_or(u32::MAX));
                    }
                    other => return Err(format!("`fail` is followed by `first`, not by `{other}`")),
                },
                "hang" => set(&mut script.fault, Fault::Hang, word)?,
                "html" => set(&mut script.fault, Fault::Html, word)?,
                "garbage" => set(&mut script.fault, Fault::Garbage, word)?,
                "blank" => set(&mut script.fault, Fault::Blank, word)?,
                "stall" => {
                    let after = count(argument()?, 0, MAX_CHUNKS)?;
                    set(&mut script.fault, Fault::Stall(after), word)?;
                }
                "cut" => {
                    let after = count(argument()?, 0, MAX_CHUNKS)?;
                    set(&mut script.fault, Fault::Cut(after), word)?;
                }
                "end" => {
                    let after = count(argument()?, 0, MAX_CHUNKS)?;
                    set(&mut script.fault, Fault::End(after), word)?;
                }
                "malformed" => {
                    let which = count(argument()?, 1, MAX_CHUNKS)?;
                    set(&mut script.fault, Fault::Malformed(which), word)?;
                }
                "huge" => {
                    let size = size(argument()?, MAX_HUGE)?;
                    set(&mut script.fault, Fault::Huge(size), word)?;
                }
                "tools" => {
                    script.tools = Some(1);
                    if let Some(Ok(calls)) = words.peek().map(|next| next.parse::<usize>()) {
                        script.tools = Some(calls.min(64));
                        words.next();
                    }
                }
                "tool" => script.tool = Some(argument()?.to_owned()),
                "args" => script.arguments = Arguments::Given,
                "noargs" => script.arguments = Arguments::None,
                "fragments" => script.fragments = Some(count(argument()?, 1, MAX_CHUNKS)?),
                "interleaved" => script.interleaved = true,
                "reasoning" => script.thinking = Thinking::Always,
                "thinks" => script.thinking = Thinking::AsAsked,
                "hidden" => script.thinking = Thinking::Hidden,
                "redacted" => script.thinking = Thinking::Redacted,
                "replay" => script.replay = true,
                "refusal" => script.ending = Ending::Refused,
                "filtered" => script.ending = Ending::Filtered,
                "blocked" => script.ending = Ending::Blocked,
                "strict" => script.strict = true,
                "cached" => script.cached = true,
                "nousage" => script.usage = UsageScript::Never,
                "usage" => match argument()? {
                    "early" => script.usage = UsageScript::Early,
                    "finish" => script.usage = UsageScript::Finish,
                    "every" => script.usage = UsageScript::Every,
                    other => {
                        return Err(format!(
                            "`usage` is followed by `early`, `finish` or `every`, not by `{other}`"
                        ));
                    }
                },
                "whole" => script.framing = Framing::Whole,
                "stream" => script.framing = Framing::Stream,
                "crlf" => script.crlf = true,
                "comments" => script.comments = true,
                "multiline" => script.multiline = true,
                "tight" => script.tight = true,
                "writes" => {
                    let bytes = size(argument()?, MAX_SIZE)?;
                    script.writes = Some(usize::try_from(bytes).unwrap_or(usize::MAX).max(1));
                }
                "window" => script.window = Some(size(argument()?, u64::from(u32::MAX))?),
                // The name of a model whose answers are vectors; what is asked for tells the same.
                "embed" => {}
                "dims" => script.dimensions = Some(count(argument()?, 1, MAX_DIMENSIONS)?),
                "floats" => script.floats = true,
                "jumbled" => script.jumbled = true,
                "bench" => script.bench = true,
                "" => return Err("the model name has an empty word".to_owned()),
                other => return Err(format!("`{other}` is not a word of the simulator")),
            }
        }
        script.content = match content {
            Some(content) => content,
            // Without other words there is nothing to cut into that many pieces.
            None if script.chunks.is_some() => Content::Lorem,
            None => Content::Echo,
        };
        Ok(script)
    }
}

fn set<T>(slot: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{word}` contradicts an earlier word")),
    }
}

fn count(text: &str, min: usize, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("`{text}` is not a number from {min} to {max}")),
    }
}

/// `250ms`, `2s`, `1m`.
fn pause(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let pause = digits.parse::<u32>().ok().and_then(|number| {
        let number = u64::from(number);
        match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_secs(number * 60)),
            _ => None,
        }
    });
    match pause {
        Some(pause) if pause <= MAX_PAUSE => Ok(pause),
        _ => Err(format!("`{text}` is not a time like 250ms, 2s or 1m (an hour at most)")),
    }
}

/// `200`, `1k`, `2m`, `1g`.
fn size(text: &str, max: u64) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return Err(format!("`{text}` is not a size like 200, 1k, 2m or 1g")),
    };
    match digits.parse::<u32>() {
        Ok(number) if (u64::from(number) << shift) <= max => Ok(u64::from(number) << shift),
        _ => Err(format!("`{text}` is not a size of at most {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_word_by_word() {
        let base = Script::default();
        let ms = Duration::from_millis;
        for (name, expected) in [
            ("echo", base.clone()),
            ("chunks-100", Script { content: Content::Lorem, chunks: Some(100), ..base.clone() }),
            ("error-429-retry-2s", Script { error: Some(429), retry: Some(ms(2000)), ..base.clone() }),
            ("tools", Script { tools: Some(1), ..base.clone() }),
            ("tools-2,slow-50ms", Script { tools: Some(2), slow: ms(50), ..base.clone() }),
            ("fail-first-2-error-500", Script { fail_first: Some(2), error: Some(500), ..base.clone() }),
            ("error-in-200", Script { fault: Some(Fault::ErrorIn200), ..base.clone() }),
            ("error-first-event", Script { fault: Some(Fault::ErrorFirstEvent), ..base.clone() }),
            ("error-after-3", Script { fault: Some(Fault::ErrorAfter(3)), ..base.clone() }),
            ("huge-1g", Script { fault: Some(Fault::Huge(1 << 30)), ..base.clone() }),
            ("bench-size-1k", Script { content: Content::Size(1024), bench: true, ..base.clone() }),
            (
                "tool-read_file-args-fragments-9",
                Script {
                    tool: Some("read_file".to_owned()),
                    arguments: Arguments::Given,
                    fragments: Some(9),
                    ..base.clone()
                },
            ),
            ("echo,usage-early", Script { usage: UsageScript::Early, ..base }),
        ] {
            assert_eq!(Script::parse(name).as_ref(), Ok(&expected), "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (name, expected) in [
            ("gpt-4o", "`gpt` is not a word"),
            ("", "empty word"),
            ("echo-", "empty word"),
            ("error", "`error` needs a value"),
            ("error-200", "400 to 599"),
            ("error-in-300", "400 to 599"),
            ("cut-x", "`x` is not a number"),
            ("cut-1-stall-2", "`stall` contradicts"),
            ("echo-lorem", "`lorem` contradicts"),
            ("delay-5", "not a time"),
            ("delay-90m", "not a time"),
            ("size-17m", "not a size"),
            ("huge-9999g", "not a size"),
            ("fail-2", "`first`"),
        ] {
            let error = Script::parse(name).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
