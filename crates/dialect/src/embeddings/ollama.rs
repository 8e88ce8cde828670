//! Ollama's form: `/api/embed`, and `/api/embeddings` for one text, which older clients use.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use omniroute_wire::{
    envelope,
    json_out::{self, Object},
    splice::Splice,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{EmbedAnswer, EmbedRequest, Encoding, Form, Item, Kind, Vector, broken, dropped, empty, span_in};
use crate::{
    DecodeError,
    client_body::not_json,
    ir::Loss,
    json_in::{Fields, str_of, wrong_type, wrong_value},
};

pub(super) fn read(form: Form, body: &Bytes) -> Result<EmbedRequest, DecodeError> {
    let whole = std::str::from_utf8(body).unwrap_or_default();
    envelope::scan_str(whole, &mut |_| {}).map_err(|error| not_json(&error))?;
    let fields = Fields::strict(whole, "")?;
    let model = fields.need_str("model")?;
    if model.trim().is_empty() {
        return Err(wrong_value("model", "the name of a model"));
    }
    let name = if form == Form::OllamaOne { "prompt" } else { "input" };
    let input = fields.raw(name).ok_or_else(|| fields.missing(name))?;
    let wrong = || wrong_type(name, "a text, or a list of texts");
    let is_nothing = str_of(input).is_some_and(|text| text.is_empty());
    let pieces: Vec<&RawValue> = match input.get().starts_with('[') && form == Form::Ollama {
        true => serde_json::from_str(input.get()).map_err(|_| wrong())?,
        // Here nothing is a question, too, and its answer.
        false if is_nothing => Vec::new(),
        false => vec![input],
    };
    let one = |raw: &RawValue| match str_of(raw) {
        None => Err(wrong()),
        Some(text) if text.is_empty() => Err(empty(name)),
        Some(_) => Ok(Item { span: span_in(whole, raw.get()), kind: Kind::Text }),
    };
    let dimensions = fields.count("dimensions")?.filter(|dimensions| *dimensions > 0);
    let known = ["model", name, "dimensions", "truncate", "options", "keep_alive"];
    let mut others: Vec<Loss> =
        fields.unlisted(&known).map(|(name, _)| dropped(name.to_owned(), false)).collect();
    // How a server of one's own runs a model means nothing elsewhere.
    let of_servers = ["options", "keep_alive"].into_iter().filter(|name| fields.raw(name).is_some());
    others.extend(of_servers.map(|name| dropped(name, true)));
    Ok(EmbedRequest {
        form,
        model: model.into_owned(),
        dimensions,
        encoding: Encoding::Floats,
        items: pieces.into_iter().map(one).collect::<Result<_, _>>()?,
        purpose: None,
        truncate: fields.bool("truncate")?,
        others,
        body: body.clone(),
    })
}

/// The answer to a request for the vectors of nothing.
pub(super) fn of_nothing(request: &EmbedRequest, asked: &str) -> Option<Bytes> {
    if !request.items.is_empty() {
        return None;
    }
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    match request.form {
        Form::Ollama => object.str("model", asked).raw("embeddings", "[]"),
        Form::OllamaOne => object.raw("embedding", "[]"),
        Form::OpenAi | Form::GeminiOne | Form::GeminiBatch | Form::BedrockTitan | Form::BedrockCohere => {
            return None;
        }
    };
    object.end();
    Some(out.freeze())
}

/// The client's bytes with the upstream's name of the model.
pub(super) fn edit(request: &EmbedRequest, items: Range<usize>, model: &str) -> Bytes {
    let is_all = items.len() == request.items.len();
    let mut name = BytesMut::new();
    json_out::string(&mut name, model);
    let name = name.freeze();
    let mut splice = Splice::new(request.body.clone());
    let _ = envelope::scan(&request.body, &mut |member| match &*member.key {
        "model" => splice.replace(member.span, name.clone()),
        "input" if !is_all => {
            let texts: Vec<&str> =
                request.items[items.clone()].iter().map(|item| request.raw(item)).collect();
            splice.replace(member.span, format!("[{}]", texts.join(",")));
        }
        _ => {}
    });
    splice.to_bytes()
}

/// A request of another form.
pub(super) fn write(request: &EmbedRequest, items: Range<usize>, model: &str) -> (Bytes, Vec<Loss>) {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("model", model);
    let mut list = object.array("input");
    for item in &request.items[items] {
        list.str(&request.text(item));
    }
    list.end();
    if let Some(dimensions) = request.dimensions {
        object.u64("dimensions", dimensions);
    }
    if let Some(truncate) = request.truncate {
        object.bool("truncate", truncate);
    }
    object.end();
    let purpose = request.purpose.as_ref().map(|_| dropped(request.purpose_name(), false));
    (out.freeze(), purpose.into_iter().collect())
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    embeddings: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    embedding: Option<&'a RawValue>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
}

pub(super) fn read_answer(body: &Bytes) -> Result<EmbedAnswer, DecodeError> {
    let document: Document<'_> = serde_json::from_slice(body)
        .map_err(|_| broken("the upstream's answer holds no embeddings".to_owned()))?;
    let vector = |raw: &&RawValue| Vector::list(body, raw.get());
    Ok(EmbedAnswer {
        vectors: document
            .embedding
            .iter()
            .chain(&document.embeddings)
            .map(vector)
            .collect::<Result<_, _>>()?,
        input_tokens: document.prompt_eval_count,
        body: body.clone(),
        is_straight: true,
    })
}

pub(super) fn answer(vectors: &[&Vector], tokens: u64, model: &str) -> Result<Bytes, DecodeError> {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    object.str("model", model);
    let list = object.key("embeddings");
    list.extend_from_slice(b"[");
    for (at, vector) in vectors.iter().enumerate() {
        if at > 0 {
            list.extend_from_slice(b",");
        }
        list.extend_from_slice(&vector.to(Encoding::Floats)?);
    }
    list.extend_from_slice(b"]");
    object.u64("prompt_eval_count", tokens);
    object.end();
    Ok(out.freeze())
}

pub(super) fn answer_one(vectors: &[&Vector]) -> Result<Bytes, DecodeError> {
    let mut out = BytesMut::from(&b"{\"embedding\":"[..]);
    if let [vector, ..] = vectors {
        out.extend_from_slice(&vector.to(Encoding::Floats)?);
    }
    out.extend_from_slice(b"}");
    Ok(out.freeze())
}
