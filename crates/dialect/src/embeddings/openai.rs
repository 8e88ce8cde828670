//! OpenAI's form, which most providers have, with their own members beside it.

use std::{borrow::Cow, ops::Range};

use bytes::{Bytes, BytesMut};
use omniroute_wire::{
    envelope::{self, Member, as_str},
    json_out::{self, Object},
    members,
    splice::Splice,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    EmbedAnswer, EmbedCaps, EmbedRequest, Encoding, Form, Item, Kind, Purpose, Vector, broken, dropped,
    empty, span_in,
};
use crate::{
    DecodeError,
    client_body::not_json,
    ir::Loss,
    json_in::{count_of, list_of, missing, wrong_type, wrong_value},
};

/// Members that this form has a place for.
const KNOWN: [&str; 8] =
    ["model", "input", "encoding_format", "dimensions", "input_type", "user", "truncate", "stream"];

/// The body of a request for these texts.
pub(super) fn of_texts(model: &str, texts: &[String]) -> Bytes {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("model", model);
    let mut list = object.array("input");
    for text in texts {
        list.str(text);
    }
    list.end();
    object.end();
    out.freeze()
}

pub(super) fn read(body: &Bytes) -> Result<EmbedRequest, DecodeError> {
    let mut seen: Vec<Member<'_>> = Vec::with_capacity(8);
    envelope::scan(body, &mut |member| seen.push(member)).map_err(|error| not_json(&error))?;
    let find = |name: &str| -> Result<Option<&Member<'_>>, DecodeError> {
        let mut named = seen.iter().filter(|member| member.key == name);
        let first = named.next();
        match named.next() {
            Some(_) => Err(DecodeError {
                code: "invalid_json",
                message: format!("`{name}` is given more than once"),
                param: Some(name.to_owned()),
            }),
            None => Ok(first.filter(|member| member.raw != "null")),
        }
    };
    let text = |name: &str| -> Result<Option<Cow<'_, str>>, DecodeError> {
        find(name)?.map(|member| as_str(member.raw).ok_or_else(|| wrong_type(name, "a string"))).transpose()
    };
    let model = text("model")?.ok_or_else(|| missing("model"))?;
    if model.trim().is_empty() {
        return Err(wrong_value("model", "the name of a model"));
    }
    let encoding = match text("encoding_format")?.as_deref() {
        None | Some("float") => Encoding::Floats,
        Some("base64") => Encoding::Base64,
        Some(_) => return Err(wrong_value("encoding_format", "`float` or `base64`")),
    };
    let dimensions = match find("dimensions")? {
        None => None,
        Some(member) => match member.raw.parse::<u64>() {
            Ok(count) if count > 0 => Some(count),
            _ => return Err(wrong_value("dimensions", "a whole number of at least 1")),
        },
    };
    let input = find("input")?.ok_or_else(|| missing("input"))?;
    let purpose = text("input_type")?.map(|word| match &*word {
        "query" | "search_query" => Purpose::Query,
        "document" | "passage" | "search_document" => Purpose::Document,
        "classification" => Purpose::Task("CLASSIFICATION"),
        "clustering" => Purpose::Task("CLUSTERING"),
        _ => Purpose::Other,
    });
    let others = seen.iter().filter(|member| !KNOWN.contains(&&*member.key));
    let others = others.map(|member| dropped(member.key.clone().into_owned(), false));
    let user = find("user")?.map(|_| dropped("user", true));
    Ok(EmbedRequest {
        form: Form::OpenAi,
        model: model.into_owned(),
        dimensions,
        encoding,
        items: items(input)?,
        purpose,
        truncate: None,
        others: others.chain(user).collect(),
        body: body.clone(),
    })
}

/// What vectors are wanted for: a text, a list of tokens, or a list of either.
fn items(input: &Member<'_>) -> Result<Vec<Item>, DecodeError> {
    let within = |raw: &str| {
        let span = span_in(input.raw, raw);
        input.span.start + span.start..input.span.start + span.end
    };
    if input.raw.starts_with('"') {
        if input.raw == "\"\"" {
            return Err(empty("input"));
        }
        return Ok(vec![Item { span: input.span.clone(), kind: Kind::Text }]);
    }
    let wrong = || wrong_type("input", "a text, a list of texts, a list of tokens or a list of such lists");
    let list: Vec<&RawValue> = serde_json::from_str(input.raw).map_err(|_| wrong())?;
    let Some(first) = list.first() else { return Err(empty("input")) };
    if count_of(first).is_some() {
        if list.iter().any(|token| count_of(token).is_none()) {
            return Err(wrong());
        }
        return Ok(vec![Item { span: input.span.clone(), kind: Kind::Tokens(list.len() as u64) }]);
    }
    let one = |raw: &&RawValue| {
        let text = raw.get();
        let kind = match text.as_bytes().first() {
            Some(b'"') if text == "\"\"" => return Err(empty("input")),
            Some(b'"') => Kind::Text,
            Some(b'{') => Kind::Other,
            Some(b'[') => match list_of(raw) {
                Some(tokens) if tokens.is_empty() => return Err(empty("input")),
                Some(tokens) if tokens.iter().all(|token| count_of(token).is_some()) => {
                    Kind::Tokens(tokens.len() as u64)
                }
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        Ok(Item { span: within(text), kind })
    };
    list.iter().map(one).collect()
}

/// The client's bytes, with what this upstream wants otherwise.
pub(super) fn edit(request: &EmbedRequest, items: Range<usize>, model: &str, caps: &EmbedCaps) -> Bytes {
    let mut body = request.body.clone();
    let drops_encoding = match request.encoding {
        Encoding::Base64 => !caps.base64,
        Encoding::Floats => !caps.float_word,
    };
    let unwanted = |key: &str| (key == "encoding_format" && drops_encoding) || key == "stream";
    let mut splice = Splice::new(body.clone());
    for span in members::removals(&body, 0, &mut |key| unwanted(key)) {
        splice.replace(span, Bytes::new());
    }
    body = splice.to_bytes();

    let mut splice = Splice::new(body.clone());
    let (mut has_type, is_all) = (false, items.len() == request.items.len());
    let mut name = BytesMut::new();
    json_out::string(&mut name, model);
    let name = name.freeze();
    let scanned = envelope::scan(&body, &mut |member| match &*member.key {
        "model" => splice.replace(member.span, name.clone()),
        "input" if !is_all => splice.replace(member.span, list(request, items.clone())),
        "input_type" => has_type = true,
        _ => {}
    });
    if caps.dimensions_name != "dimensions"
        && let Some(key) = members::name_of(&body, "dimensions")
    {
        splice.replace(key, format!("\"{}\"", caps.dimensions_name));
    }
    if let (Ok(extent), Some([query, _])) = (scanned, caps.input_types)
        && caps.needs_input_type
        && !has_type
    {
        splice.replace(extent.end..extent.end, format!(",\"input_type\":\"{query}\""));
    }
    splice.to_bytes()
}

/// Some of the items as a list.
fn list(request: &EmbedRequest, items: Range<usize>) -> Bytes {
    let mut out = BytesMut::new();
    out.extend_from_slice(b"[");
    for (at, item) in request.items[items].iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(request.raw(item).as_bytes());
    }
    out.extend_from_slice(b"]");
    out.freeze()
}

/// A request of another form.
pub(super) fn write(
    request: &EmbedRequest,
    items: Range<usize>,
    model: &str,
    caps: &EmbedCaps,
) -> (Bytes, Vec<Loss>) {
    let mut losses = Vec::new();
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("model", model);
    let mut list = object.array("input");
    for item in &request.items[items] {
        list.str(&request.text(item));
    }
    list.end();
    if let Some(dimensions) = request.dimensions {
        object.u64(caps.dimensions_name, dimensions);
    }
    match (&request.purpose, caps.input_types) {
        (Some(Purpose::Query), Some([query, _])) => drop(object.str("input_type", query)),
        (Some(Purpose::Document), Some([_, document])) => drop(object.str("input_type", document)),
        (Some(_), _) => losses.push(dropped("taskType", false)),
        (None, Some([query, _])) if caps.needs_input_type => drop(object.str("input_type", query)),
        (None, _) => {}
    }
    if request.truncate.is_some() {
        losses.push(dropped("truncate", true));
    }
    object.end();
    (out.freeze(), losses)
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    data: Vec<Entry<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    embedding: &'a RawValue,
    #[serde(default)]
    index: Option<u64>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
}

pub(super) fn read_answer(body: &Bytes) -> Result<EmbedAnswer, DecodeError> {
    let document: Document<'_> = serde_json::from_slice(body)
        .map_err(|_| broken("the upstream's answer is no list of embeddings".to_owned()))?;
    let mut entries = Vec::with_capacity(document.data.len());
    for (at, entry) in document.data.iter().enumerate() {
        let raw = entry.embedding.get();
        let vector = match raw.as_bytes().first() {
            Some(b'[') => Vector::list(body, raw)?,
            Some(b'"') if raw != "\"\"" => {
                // Base64 has nothing that would be escaped but slashes, which some escape.
                let inner = raw.as_bytes().get(1..raw.len() - 1).unwrap_or_default();
                match memchr::memchr(b'\\', inner) {
                    None => Vector::Base64(body.slice_ref(inner)),
                    Some(_) => Vector::Base64(as_str(raw).unwrap_or_default().into_owned().into()),
                }
            }
            _ => return Err(broken(format!("the upstream's embedding {at} is no vector"))),
        };
        entries.push((entry.index.unwrap_or(at as u64), vector));
    }
    let is_straight = entries.iter().zip(0..).all(|((index, _), at)| *index == at);
    entries.sort_by_key(|(index, _)| *index);
    if entries.iter().zip(0..).any(|((index, _), at)| *index != at) {
        return Err(broken("the upstream's embeddings are not numbered from 0".to_owned()));
    }
    let usage = document.usage;
    Ok(EmbedAnswer {
        vectors: entries.into_iter().map(|(_, vector)| vector).collect(),
        input_tokens: usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens)),
        body: body.clone(),
        is_straight,
    })
}

pub(super) fn answer(
    vectors: &[&Vector],
    encoding: Encoding,
    tokens: u64,
    model: &str,
) -> Result<Bytes, DecodeError> {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("object", "list");
    let list = object.key("data");
    list.extend_from_slice(b"[");
    for (at, vector) in vectors.iter().enumerate() {
        if at > 0 {
            list.extend_from_slice(b",");
        }
        list.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
        json_out::u64(list, at as u64);
        list.extend_from_slice(b",\"embedding\":");
        list.extend_from_slice(&vector.to(encoding)?);
        list.extend_from_slice(b"}");
    }
    list.extend_from_slice(b"]");
    object.str("model", model);
    let mut usage = Object::begin(object.key("usage"));
    usage.u64("prompt_tokens", tokens).u64("total_tokens", tokens);
    usage.end();
    object.end();
    Ok(out.freeze())
}
