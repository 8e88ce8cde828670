//! Bedrock's own forms: what the models of Amazon and of Cohere take at `/model/{model}/invoke`
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html>,
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed-v3.html>,
//! <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed-v4.html>). No client speaks them.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::Object;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{EmbedAnswer, EmbedRequest, Form, Purpose, Vector, broken, dropped};
use crate::{DecodeError, ir::Loss, json_in::list_of};

/// Parts of the names of Cohere's third generation, which has other words than those after it.
const THIRD_OF_COHERE: [&str; 2] = ["embed-english-v3", "embed-multilingual-v3"];

/// The form in which a model is asked; `None` for models whose form is not known here.
pub(super) fn form_of(model: &str) -> Option<Form> {
    // Profiles that span regions have something before the maker's name.
    if model.contains("cohere.embed-") {
        Some(Form::BedrockCohere)
    } else if model.contains("amazon.titan-embed-text") || model.contains("amazon.titan-embed-g1") {
        Some(Form::BedrockTitan)
    } else {
        None
    }
}

/// A request for one text: Amazon's models take no more at once.
pub(super) fn write_titan(request: &EmbedRequest, items: Range<usize>) -> (Bytes, Vec<Loss>) {
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    if let Some(item) = request.items.get(items.start) {
        object.str("inputText", &request.text(item));
    }
    if let Some(dimensions) = request.dimensions {
        object.u64("dimensions", dimensions);
    }
    object.end();
    let mut losses = Vec::new();
    if request.purpose.is_some() {
        losses.push(dropped(request.purpose_name(), false));
    }
    if request.truncate.is_some() {
        losses.push(dropped("truncate", true));
    }
    (out.freeze(), losses)
}

/// A request for some texts. What they are for has to be said here; where nobody said, they are what is searched.
pub(super) fn write_cohere(request: &EmbedRequest, items: Range<usize>, model: &str) -> (Bytes, Vec<Loss>) {
    let is_third = THIRD_OF_COHERE.iter().any(|name| model.contains(name));
    let mut losses = Vec::new();
    let purpose = match &request.purpose {
        None | Some(Purpose::Document) => "search_document",
        Some(Purpose::Query) => "search_query",
        Some(Purpose::Task("CLASSIFICATION")) => "classification",
        Some(Purpose::Task("CLUSTERING")) => "clustering",
        Some(Purpose::Task(_) | Purpose::Other) => {
            losses.push(dropped(request.purpose_name(), false));
            "search_document"
        }
    };
    let mut out = BytesMut::new();
    let mut object = Object::begin(&mut out);
    let mut list = object.array("texts");
    for item in &request.items[items] {
        list.str(&request.text(item));
    }
    list.end();
    object.str("input_type", purpose);
    // Vectors of the older models have one length, and who names that asks for nothing.
    if let Some(dimensions) = request.dimensions.filter(|_| !is_third) {
        object.u64("output_dimension", dimensions);
    }
    if let Some(truncate) = request.truncate {
        let word = match truncate {
            false => "NONE",
            true if is_third => "END",
            true => "RIGHT",
        };
        object.str("truncate", word);
    }
    object.end();
    (out.freeze(), losses)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Titan<'a> {
    #[serde(borrow)]
    embedding: &'a RawValue,
    #[serde(default)]
    input_text_token_count: Option<u64>,
}

pub(super) fn read_titan(body: &Bytes) -> Result<EmbedAnswer, DecodeError> {
    let answer: Titan<'_> = serde_json::from_slice(body).map_err(|_| nothing())?;
    Ok(EmbedAnswer {
        vectors: vec![Vector::list(body, answer.embedding.get())?],
        input_tokens: answer.input_text_token_count,
        body: body.clone(),
        is_straight: true,
    })
}

#[derive(Deserialize)]
struct Cohere<'a> {
    #[serde(borrow)]
    embeddings: &'a RawValue,
}

/// Newer models sort vectors by the type of their numbers.
#[derive(Deserialize)]
struct ByType<'a> {
    #[serde(borrow)]
    float: &'a RawValue,
}

pub(super) fn read_cohere(body: &Bytes) -> Result<EmbedAnswer, DecodeError> {
    let answer: Cohere<'_> = serde_json::from_slice(body).map_err(|_| nothing())?;
    let all = match answer.embeddings.get().starts_with('{') {
        true => serde_json::from_str::<ByType<'_>>(answer.embeddings.get()).map_err(|_| nothing())?.float,
        false => answer.embeddings,
    };
    let vectors = list_of(all).ok_or_else(nothing)?;
    Ok(EmbedAnswer {
        vectors: vectors.into_iter().map(|raw| Vector::list(body, raw.get())).collect::<Result<_, _>>()?,
        input_tokens: None,
        body: body.clone(),
        is_straight: true,
    })
}

fn nothing() -> DecodeError {
    broken("the upstream's answer holds no embeddings".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::{EmbedCaps, Encoding, read_answer};

    fn written(from: Form, to: Form, model: &str, body: &'static str) -> (String, Vec<String>) {
        let request = EmbedRequest::read(from, &Bytes::from_static(body.as_bytes())).unwrap();
        let written = request.write(to, 0..request.len(), model, &EmbedCaps::default());
        let losses = written.losses.iter().filter(|loss| !loss.silent);
        (
            String::from_utf8(written.body.to_vec()).unwrap(),
            losses.map(|loss| loss.path.to_string()).collect(),
        )
    }

    #[test]
    fn models_have_the_form_of_their_maker() {
        for (model, form) in [
            ("amazon.titan-embed-text-v2:0", Some(Form::BedrockTitan)),
            ("cohere.embed-v4:0", Some(Form::BedrockCohere)),
            ("us.cohere.embed-v4:0", Some(Form::BedrockCohere)),
            ("amazon.nova-2-multimodal-embeddings-v1:0", None),
        ] {
            assert_eq!(form_of(model), form, "{model}");
        }
    }

    #[test]
    fn requests_are_written_in_the_words_of_each() {
        for (to, body, expected, losses) in [
            (
                Form::BedrockTitan,
                r#"{"model":"m","input":"a \"b\"","dimensions":256,"encoding_format":"base64"}"#,
                r#"{"inputText":"a \"b\"","dimensions":256}"#,
                &[][..],
            ),
            (
                Form::BedrockTitan,
                r#"{"model":"m","input":"a","input_type":"query","x":1}"#,
                r#"{"inputText":"a"}"#,
                &["input_type", "x"],
            ),
            (
                Form::BedrockCohere,
                r#"{"model":"m","input":["a","b"],"dimensions":512,"input_type":"query"}"#,
                r#"{"texts":["a","b"],"input_type":"search_query","output_dimension":512}"#,
                &[],
            ),
            (
                Form::BedrockCohere,
                r#"{"model":"m","input":"a"}"#,
                r#"{"texts":["a"],"input_type":"search_document"}"#,
                &[],
            ),
        ] {
            let (body, lost) = written(Form::OpenAi, to, "cohere.embed-v4:0", body);
            assert_eq!(
                (body.as_str(), lost.as_slice()),
                (expected, &losses.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
            );
        }
    }

    #[test]
    fn generations_of_cohere_have_words_of_their_own() {
        for (model, body, expected) in [
            ("cohere.embed-v4:0", r#"{"model":"m","input":"a","truncate":true}"#, r#","truncate":"RIGHT"}"#),
            (
                "us.cohere.embed-v4:0",
                r#"{"model":"m","input":"a","truncate":false}"#,
                r#","truncate":"NONE"}"#,
            ),
            (
                "cohere.embed-english-v3",
                r#"{"model":"m","input":"a","truncate":true,"dimensions":1024}"#,
                r#","truncate":"END"}"#,
            ),
            (
                "cohere.embed-multilingual-v3",
                r#"{"model":"m","input":"a","truncate":false}"#,
                r#","truncate":"NONE"}"#,
            ),
        ] {
            let (written, lost) = written(Form::Ollama, Form::BedrockCohere, model, body);
            assert_eq!(
                written,
                format!(r#"{{"texts":["a"],"input_type":"search_document"{expected}"#),
                "{model}"
            );
            assert!(lost.is_empty(), "{model}: {lost:?}");
        }
    }

    #[test]
    fn answers_of_each_are_vectors() {
        for (form, body, count, tokens) in [
            (Form::BedrockTitan, r#"{"embedding":[0.5,1],"inputTextTokenCount":3}"#, 1, Some(3)),
            (Form::BedrockCohere, r#"{"id":"x","embeddings":[[0.5],[1]],"texts":["a","b"]}"#, 2, None),
            (Form::BedrockCohere, r#"{"embeddings":{"float":[[0.5],[1]]}}"#, 2, None),
        ] {
            let answer = read_answer(form, &Bytes::from_static(body.as_bytes()), count).unwrap();
            assert_eq!(answer.input_tokens, tokens, "{body}");
            assert_eq!(answer.vectors[0].encoding(), Encoding::Floats);
            assert_eq!(answer.vectors[0].values().unwrap()[0], 0.5);
        }
        for (form, body) in [
            (Form::BedrockTitan, r#"{"message":"no"}"#),
            (Form::BedrockCohere, r#"{"embeddings":{"int8":[[1]]}}"#),
            (Form::BedrockCohere, r#"{"embeddings":[[]]}"#),
        ] {
            assert!(read_answer(form, &Bytes::from_static(body.as_bytes()), 1).is_err(), "{body}");
        }
        let body = Bytes::from_static(br#"{"model":"m","input":"a"}"#);
        assert!(EmbedRequest::read(Form::BedrockTitan, &body).is_err(), "no client speaks it");
    }
}
