//! Google's form: `:embedContent` for one text, `:batchEmbedContents` for several. The path names the model, and each request
//! of a batch does so again.

use std::{borrow::Cow, ops::Range};

use bytes::{Bytes, BytesMut};
use omniroute_wire::{
    envelope,
    json_out::{self, Object},
    splice::Splice,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    EmbedAnswer, EmbedRequest, Encoding, Form, Item, Kind, Purpose, Vector, broken, dropped, empty, span_in,
};
use crate::{
    DecodeError, EncodeError,
    client_body::not_json,
    ir::Loss,
    json_in::{Fields, wrong_value},
};

const KNOWN: [&str; 5] = ["model", "content", "taskType", "title", "outputDimensionality"];

/// What one request says beside its text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Wish {
    dimensions: Option<u64>,
    task: Option<String>,
}

pub(super) fn read(form: Form, body: &Bytes) -> Result<EmbedRequest, DecodeError> {
    let whole = std::str::from_utf8(body).unwrap_or_default();
    envelope::scan_str(whole, &mut |_| {}).map_err(|error| not_json(&error))?;
    let (mut items, mut others, mut wish) = (Vec::new(), Vec::new(), None);
    if form == Form::GeminiOne {
        let fields = Fields::strict_camel(whole, "")?;
        wish = Some(one(&fields, &mut others)?);
        items.push(Item { span: 0..whole.len(), kind: kind(&fields)? });
    } else {
        let fields = Fields::strict_camel(whole, "")?;
        let list = fields.list("requests")?.ok_or_else(|| fields.missing("requests"))?;
        if list.is_empty() {
            return Err(empty("requests"));
        }
        others
            .extend(fields.unlisted(&["requests", "model"]).map(|(name, _)| dropped(name.to_owned(), false)));
        for (at, raw) in list.iter().enumerate() {
            let fields = Fields::strict_camel(raw.get(), format!("requests[{at}]"))?;
            let own = one(&fields, &mut others)?;
            if wish.get_or_insert_with(|| own.clone()) != &own {
                // Within Google's dialect this is fine; it is refused where it cannot be carried.
                others.push(dropped(format!("requests[{at}]"), false));
            }
            items.push(Item { span: span_in(whole, raw.get()), kind: kind(&fields)? });
        }
    }
    let wish = wish.unwrap_or_default();
    let purpose = wish.task.map(|task| match task.as_str() {
        "RETRIEVAL_QUERY" | "QUESTION_ANSWERING" | "FACT_VERIFICATION" | "CODE_RETRIEVAL_QUERY" => {
            Purpose::Query
        }
        "RETRIEVAL_DOCUMENT" => Purpose::Document,
        _ => Purpose::Other,
    });
    Ok(EmbedRequest {
        form,
        model: String::new(),
        dimensions: wish.dimensions,
        encoding: Encoding::Floats,
        items,
        purpose,
        truncate: None,
        others,
        body: body.clone(),
    })
}

fn one(fields: &Fields<'_>, others: &mut Vec<Loss>) -> Result<Wish, DecodeError> {
    others.extend(fields.unlisted(&KNOWN).map(|(name, _)| dropped(fields.path_of(name), false)));
    if fields.raw("title").is_some() {
        others.push(dropped(fields.path_of("title"), false));
    }
    let dimensions = fields.count("outputDimensionality")?;
    if dimensions == Some(0) {
        return Err(wrong_value(fields.path_of("outputDimensionality"), "a whole number of at least 1"));
    }
    Ok(Wish { dimensions, task: fields.str("taskType")?.map(Cow::into_owned) })
}

/// Whether there is only text in a request, and some of it.
fn kind(fields: &Fields<'_>) -> Result<Kind, DecodeError> {
    let path = fields.path_of("content");
    let content = fields.object("content")?.ok_or_else(|| fields.missing("content"))?;
    let parts = content.list("parts")?.unwrap_or_default();
    let mut is_text = true;
    let mut length = 0;
    for (at, part) in parts.iter().enumerate() {
        let part = Fields::strict_camel(part.get(), format!("{path}.parts[{at}]"))?;
        match part.str("text")? {
            Some(text) => length += text.len(),
            None => is_text = false,
        }
    }
    if parts.is_empty() || (is_text && length == 0) {
        return Err(empty(&path));
    }
    Ok(if is_text { Kind::Text } else { Kind::Other })
}

/// The text of a request.
pub(super) fn text(raw: &str) -> String {
    let Ok(fields) = Fields::strict_camel(raw, "") else { return String::new() };
    let content = fields.object_or_none("content");
    let parts = content.and_then(|content| content.list("parts").ok().flatten()).unwrap_or_default();
    let texts: Vec<String> = parts
        .iter()
        .filter_map(|part| {
            let part = Fields::strict_camel(part.get(), "").ok()?;
            part.str("text").ok().flatten().map(Cow::into_owned)
        })
        .collect();
    texts.join("\n")
}

/// The client's bytes with the upstream's name of the model.
pub(super) fn edit(request: &EmbedRequest, items: Range<usize>, model: &str) -> Bytes {
    let mut name = BytesMut::new();
    json_out::string(&mut name, &format!("models/{model}"));
    let name = name.freeze();
    if request.form == Form::GeminiOne {
        return named(&request.body, &name, false);
    }
    if items.len() == request.items.len() {
        let mut splice = Splice::new(request.body.clone());
        for item in &request.items {
            splice.replace(item.span.clone(), named(&request.body.slice(item.span.clone()), &name, true));
        }
        return splice.to_bytes();
    }
    let mut out = BytesMut::from(&b"{\"requests\":["[..]);
    for (at, item) in request.items[items].iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(&named(&request.body.slice(item.span.clone()), &name, true));
    }
    out.extend_from_slice(b"]}");
    out.freeze()
}

/// An object with another model; one that has none gets it where it must have one.
fn named(object: &Bytes, name: &Bytes, is_needed: bool) -> Bytes {
    let mut splice = Splice::new(object.clone());
    let mut has_model = false;
    let scanned = envelope::scan(object, &mut |member| {
        if member.key == "model" {
            has_model = true;
            splice.replace(member.span, name.clone());
        }
    });
    if let Ok(extent) = scanned
        && is_needed
        && !has_model
    {
        let comma = if extent.has_members { "," } else { "" };
        let member = [comma.as_bytes(), b"\"model\":", name].concat();
        splice.replace(extent.end..extent.end, member);
    }
    splice.to_bytes()
}

/// A request of another form.
pub(super) fn write(request: &EmbedRequest, items: Range<usize>, model: &str) -> (Bytes, Vec<Loss>) {
    let mut losses = Vec::new();
    let task = match &request.purpose {
        None => None,
        Some(Purpose::Query) => Some("RETRIEVAL_QUERY"),
        Some(Purpose::Document) => Some("RETRIEVAL_DOCUMENT"),
        Some(Purpose::Task(task)) => Some(*task),
        Some(Purpose::Other) => {
            losses.push(dropped("input_type", false));
            None
        }
    };
    if request.truncate.is_some() {
        losses.push(dropped("truncate", true));
    }
    let name = format!("models/{model}");
    let mut out = BytesMut::new();
    out.extend_from_slice(b"{\"requests\":[");
    for (at, item) in request.items[items].iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        let mut object = Object::begin(&mut out);
        object.str("model", &name);
        let content = object.key("content");
        content.extend_from_slice(b"{\"parts\":[{\"text\":");
        json_out::string(content, &request.text(item));
        content.extend_from_slice(b"}]}");
        object.opt_str("taskType", task);
        if let Some(dimensions) = request.dimensions {
            object.u64("outputDimensionality", dimensions);
        }
        object.end();
    }
    out.extend_from_slice(b"]}");
    (out.freeze(), losses)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow, default)]
    embeddings: Vec<Values<'a>>,
    #[serde(borrow, default)]
    embedding: Option<Values<'a>>,
    #[serde(default)]
    usage_metadata: Option<Usage>,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    values: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    #[serde(default)]
    prompt_token_count: Option<u64>,
    #[serde(default)]
    total_token_count: Option<u64>,
}

pub(super) fn read_answer(body: &Bytes) -> Result<EmbedAnswer, DecodeError> {
    let document: Document<'_> = serde_json::from_slice(body)
        .map_err(|_| broken("the upstream's answer holds no embeddings".to_owned()))?;
    let all = document.embedding.iter().chain(&document.embeddings);
    let vector = |values: &Values<'_>| Vector::list(body, values.values.get());
    let usage = document.usage_metadata;
    Ok(EmbedAnswer {
        vectors: all.map(vector).collect::<Result<_, _>>()?,
        input_tokens: usage.and_then(|usage| usage.prompt_token_count.or(usage.total_token_count)),
        body: body.clone(),
        is_straight: true,
    })
}

pub(super) fn answer_one(vectors: &[&Vector]) -> Result<Bytes, DecodeError> {
    let mut out = BytesMut::from(&b"{\"embedding\":{\"values\":"[..]);
    if let [vector, ..] = vectors {
        out.extend_from_slice(&vector.to(Encoding::Floats)?);
    }
    out.extend_from_slice(b"}}");
    Ok(out.freeze())
}

pub(super) fn answer(vectors: &[&Vector]) -> Result<Bytes, DecodeError> {
    let mut out = BytesMut::from(&b"{\"embeddings\":["[..]);
    for (at, vector) in vectors.iter().enumerate() {
        let comma: &[u8] = if at > 0 { b"," } else { b"" };
        out.extend_from_slice(comma);
        out.extend_from_slice(b"{\"values\":");
        out.extend_from_slice(&vector.to(Encoding::Floats)?);
        out.extend_from_slice(b"}");
    }
    out.extend_from_slice(b"]}");
    Ok(out.freeze())
}

/// Whether the requests of a batch want different things, which only Google's own dialect can say.
pub(super) fn check_alike(request: &EmbedRequest) -> Result<(), EncodeError> {
    let differs =
        request.others.iter().find(|loss| loss.path.starts_with("requests[") && loss.path.ends_with(']'));
    match differs {
        None => Ok(()),
        Some(loss) => Err(EncodeError {
            code: "unsupported_parameter",
            param: Some(loss.path.to_string()),
            message: format!(
                "`{}` wants another `taskType` or `outputDimensionality` than the first request, which this model's \
                 provider cannot do in one call; send them apart",
                loss.path
            ),
        }),
    }
}
