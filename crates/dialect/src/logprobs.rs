//! Log probabilities as OpenAI's dialects and Ollama write them.

use bytes::BytesMut;
use omniroute_wire::{
    json_out::{self, Array, Object},
    sse::DEFAULT_FRAME_LIMIT,
};
use serde_json::value::RawValue;

use crate::{
    ir::Logprob,
    json_in::{Fields, compact, list_of, str_of},
    stream::StreamError,
};

/// What an unknown probability is written as: one that is next to nothing.
const LEAST: &str = "-9999.0";

/// Reads a list of tokens. What cannot be read is left out.
pub(crate) fn read(raw: &RawValue) -> Vec<Logprob> {
    list_of(raw).unwrap_or_default().into_iter().filter_map(|raw| token(raw, true)).collect()
}

fn token(raw: &RawValue, with_others: bool) -> Option<Logprob> {
    let fields = Fields::lenient(raw.get(), "").ok()?;
    let others = fields.raw("top_logprobs").filter(|_| with_others).and_then(list_of);
    Some(Logprob {
        token: fields.raw("token").and_then(str_of)?.into_owned(),
        logprob: fields.raw("logprob").filter(|raw| is_number(raw)).map(ToOwned::to_owned),
        bytes: fields.raw("bytes").filter(|raw| raw.get().starts_with('[')).and_then(in_one_line),
        others: others.unwrap_or_default().into_iter().filter_map(|raw| token(raw, false)).collect(),
    })
}

fn in_one_line(raw: &RawValue) -> Option<Box<RawValue>> {
    RawValue::from_string(compact(raw.get())).ok()
}

/// Whether a value is a number.
pub(crate) fn is_number(raw: &RawValue) -> bool {
    raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Appends tokens as the elements of a list, without its brackets; with a comma before them where something is there.
pub(crate) fn write_elements(out: &mut BytesMut, tokens: &[Logprob]) {
    for token in tokens {
        if !out.is_empty() {
            out.extend_from_slice(b",");
        }
        write(out, token, true);
    }
}

/// Keeps tokens, as the elements of a list, for the text that comes next.
pub(crate) fn hold(out: &mut BytesMut, tokens: &[Logprob]) -> Result<(), StreamError> {
    write_elements(out, tokens);
    if out.len() > DEFAULT_FRAME_LIMIT {
        return Err(StreamError::Protocol("the log probabilities of a text exceed 16 MiB".to_owned()));
    }
    Ok(())
}

/// Appends tokens as a list.
pub(crate) fn write_list(out: &mut BytesMut, tokens: &[Logprob]) {
    let mut list = Array::begin(out);
    tokens.iter().for_each(|token| write(list.element(), token, true));
    list.end();
}

/// A number, or what stands for one that is not known.
pub(crate) fn number(token: &Logprob) -> &str {
    token.logprob.as_deref().map_or(LEAST, RawValue::get)
}

fn write(out: &mut BytesMut, token: &Logprob, with_others: bool) {
    let mut object = Object::begin(out);
    object.str("token", &token.token).raw("logprob", number(token));
    match &token.bytes {
        Some(bytes) => {
            object.raw("bytes", bytes.get());
        }
        // A token may be half a character, whose bytes the text does not tell.
        None if token.token.contains(char::REPLACEMENT_CHARACTER) => {
            object.raw("bytes", "null");
        }
        None => {
            let list = object.key("bytes");
            let mut bytes = Array::begin(list);
            token.token.bytes().for_each(|byte| json_out::u64(bytes.element(), byte.into()));
            bytes.end();
        }
    }
    if with_others {
        let list = object.key("top_logprobs");
        let mut others = Array::begin(list);
        token.others.iter().for_each(|other| write(others.element(), other, false));
        others.end();
    }
    object.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_written_as_they_were_read() {
        let list = r#"[{"token":"H\u00e4","logprob":-0.50,"bytes":[72,195,164],"top_logprobs":[{"token":"x","logprob":-1e-3,"bytes":[120]}]},{"token":"y","logprob":-2,"bytes":[121],"top_logprobs":[]}]"#;
        let read_again = read(serde_json::from_str(list).unwrap());
        let mut out = BytesMut::new();
        write_list(&mut out, &read_again);
        assert_eq!(out, list.replace("\\u00e4", "ä"));
    }

    #[test]
    fn what_is_not_said_is_supplied_and_what_is_no_token_left_out() {
        let list = r#"[{"token":"a"},{"token":"�","logprob":"x","bytes":null},{"logprob":1},5]"#;
        let mut out = BytesMut::new();
        write_elements(&mut out, &read(serde_json::from_str(list).unwrap()));
        assert_eq!(
            out,
            r#"{"token":"a","logprob":-9999.0,"bytes":[97],"top_logprobs":[]},{"token":"�","logprob":-9999.0,"bytes":null,"top_logprobs":[]}"#
        );
        assert!(read(serde_json::from_str("{}").unwrap()).is_empty());
    }
}
