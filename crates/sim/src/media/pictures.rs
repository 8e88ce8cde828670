//! OpenAI's pictures, with what each model and each house refuses.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Response, header, request::Parts};
use serde_json::{Value, json};

use super::{Errand, is_silent, json, play, script, vendors_name};
use crate::{
    SimBody, Simulator,
    body::{self, Step},
    check::{At, Wording as _},
    json_document,
    openai::OpenAi,
    refusal::Refusal,
    script::{Fault, Script},
    stage::{self, Ids},
};

const KNOWN: &[&str] = &[
    "dall-e-2",
    "dall-e-3",
    "gpt-image-1",
    "gpt-image-1.5",
    "gpt-image-1-mini",
    "grok-2-image-1212",
    "black-forest-labs/FLUX.1-schnell",
];
/// One pixel.
pub(super) const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// The picture that is always painted.
pub(super) fn png() -> Bytes {
    BASE64_STANDARD.decode(PNG).unwrap_or_default().into()
}

/// What a house and a model take.
pub(super) struct Rules {
    pub(super) fields: &'static [&'static str],
    most: u64,
    sizes: &'static [&'static str],
    /// The words for how pictures are wanted; the first goes without saying.
    formats: &'static [&'static str],
    /// How many pictures can be changed at once; none where nothing can be changed.
    pub(super) most_given: usize,
}

const ANY: Rules = Rules {
    fields: &["model", "prompt", "n", "size", "quality", "style", "response_format", "user"],
    most: 10,
    sizes: &[],
    formats: &["url", "b64_json"],
    most_given: 1,
};

pub(super) fn rules(house: &str, model: &str) -> Rules {
    match (house, model) {
        ("xai", _) => {
            Rules { fields: &["model", "prompt", "n", "response_format", "user"], most_given: 3, ..ANY }
        }
        ("together", _) => Rules {
            fields: &["model", "prompt", "n", "width", "height", "steps", "seed", "response_format"],
            most: 4,
            formats: &["url", "base64"],
            most_given: 0,
            ..ANY
        },
        (_, "dall-e-3") => {
            Rules { most: 1, sizes: &["1024x1024", "1024x1792", "1792x1024"], most_given: 0, ..ANY }
        }
        (_, "dall-e-2") => Rules {
            fields: &["model", "prompt", "n", "size", "response_format", "user"],
            sizes: &["256x256", "512x512", "1024x1024"],
            ..ANY
        },
        (_, model) if model.starts_with("gpt-image") => Rules {
            fields: &[
                "model",
                "prompt",
                "n",
                "size",
                "quality",
                "background",
                "output_format",
                "output_compression",
                "moderation",
                "user",
                "stream",
                "partial_images",
            ],
            sizes: &["auto", "1024x1024", "1024x1536", "1536x1024"],
            formats: &["b64_json"],
            most_given: 16,
            ..ANY
        },
        _ => ANY,
    }
}

/// What is to be painted.
pub(super) struct Order<'a> {
    pub(super) house: &'a str,
    /// The model's name, words included.
    pub(super) name: &'a str,
    /// Pictures that are changed, in words; nothing where none are.
    pub(super) changed: Option<String>,
    /// Tokens of those.
    pub(super) given_tokens: u64,
}

impl Simulator {
    pub(super) async fn pictures(
        &self,
        errand: &Errand<'_>,
        key: &str,
        parts: &Parts,
        body: &Bytes,
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let body = json_document(true, &parts.headers, body)?;
        let root = At::root(&body, &OpenAi);
        let name = root.need("model")?.text()?;
        root.known(&[rules(errand.house, vendors_name(name)).fields])?;
        let order = Order { house: errand.house, name, changed: None, given_tokens: 0 };
        self.paint(&order, &root, key, parts, ids).await
    }

    /// Judges what pictures of both kinds have, and paints.
    pub(super) async fn paint(
        &self,
        order: &Order<'_>,
        root: &At<'_>,
        key: &str,
        parts: &Parts,
        ids: Ids,
    ) -> Result<Response<SimBody>, Refusal> {
        let script = script(order.name, KNOWN, &OpenAi)?;
        let model = vendors_name(order.name);
        if order.house == "retired" && model.starts_with("dall-e") {
            let message = format!("The model `{model}` has been deprecated, learn more in the documentation");
            return Err(Refusal { param: Some("model".to_owned()), ..Refusal::status(404, message) });
        }
        let rules = rules(order.house, model);
        let prompt = root.need("prompt")?.text()?;
        let count = match root.get("n") {
            Some(n) if n.integer(1)? > rules.most => {
                return Err(n.wrong(&format!("must be at most {} for this model", rules.most)));
            }
            Some(n) => n.integer(1)?,
            None => 1,
        };
        if let Some(size) = root.get("size")
            && !rules.sizes.is_empty()
        {
            size.one_of(rules.sizes)?;
        }
        for name in ["width", "height"] {
            if let Some(side) = root.get(name)
                && side.integer(64)? % 8 != 0
            {
                return Err(side.wrong("must be a multiple of 8"));
            }
        }
        match model {
            "dall-e-3" => {
                root.get("quality").map(|it| it.one_of(&["standard", "hd"])).transpose()?;
                root.get("style").map(|it| it.one_of(&["vivid", "natural"])).transpose()?;
            }
            model if model.starts_with("gpt-image") => {
                root.get("quality").map(|it| it.one_of(&["auto", "low", "medium", "high"])).transpose()?;
                root.get("output_format").map(|it| it.one_of(&["png", "jpeg", "webp"])).transpose()?;
            }
            _ => {}
        }
        let format = match root.get("response_format") {
            Some(format) => format.one_of(rules.formats)?,
            None => rules.formats[0],
        };
        let is_stream = match root.get("stream") {
            Some(stream) => stream.bool()?,
            None => false,
        };
        let sketches = match root.get("partial_images") {
            Some(partial) if !is_stream => return Err(partial.wrong("is only supported when streaming")),
            Some(partial) if partial.integer(0)? > 3 => return Err(partial.wrong("must be at most 3")),
            Some(partial) => partial.integer(0)?,
            None => 0,
        };
        if let Some(response) = self.act(key, order.name, &script, ids).await? {
            return Ok(response);
        }
        let host =
            parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("sim.invalid");
        let picture = |at: u64| {
            let mut entry = match format {
                "url" => json!({"url": format!("http://{host}/v1/pictures/{}-{at}.png", ids.answer("img-"))}),
                _ => json!({"b64_json": PNG}),
            };
            if let Some(changed) = &order.changed {
                entry["revised_prompt"] = format!("{prompt}: {changed}").into();
            } else if model == "dall-e-3" {
                entry["revised_prompt"] = format!("A picture of: {prompt}").into();
            }
            if order.house == "together" {
                entry["index"] = at.into();
            }
            entry
        };
        let count = if is_silent(&script) { 0 } else { count };
        let text = prompt.chars().count().div_ceil(4) as u64;
        let (input, output) = (text + order.given_tokens, 1056 * count);
        let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output,
            "input_tokens_details": {"text_tokens": text, "image_tokens": order.given_tokens}});
        let output_format = root.get("output_format").map_or("png".into(), |it| it.value.clone());
        if is_stream {
            let kind = if order.changed.is_some() { "image_edit" } else { "image_generation" };
            let event = |what: &str, mut more: Value| {
                more["type"] = format!("{kind}.{what}").into();
                more["created_at"] = ids.created().into();
                more["output_format"] = output_format.clone();
                more
            };
            let mut events = Vec::new();
            for at in 0..count {
                for sketch in 0..sketches {
                    let more = json!({"b64_json": PNG, "partial_image_index": sketch});
                    events.push(event("partial_image", more));
                }
                let mut done = picture(at);
                if at + 1 == count {
                    done["usage"] = usage.clone();
                }
                events.push(event("completed", done));
            }
            return Ok(told(&events, &script, ids));
        }
        let data: Vec<Value> = (0..count).map(picture).collect();
        let mut answer = json!({"created": ids.created(), "data": data});
        if model.starts_with("gpt-image") {
            answer["output_format"] = output_format;
            answer["usage"] = usage;
        }
        Ok(play(json(&answer), super::JSON, &script))
    }
}

/// Events as the script wants them: after so many something goes wrong.
fn told(events: &[Value], script: &Script, ids: Ids) -> Response<SimBody> {
    let breaks_after = match script.fault {
        Some(Fault::Cut(after) | Fault::End(after) | Fault::Stall(after) | Fault::ErrorAfter(after)) => after,
        _ => usize::MAX,
    };
    let frame = |name: &str, data: &Value| Step::Send(format!("event: {name}\ndata: {data}\n\n").into());
    let mut steps = Vec::new();
    for (at, event) in events.iter().enumerate().take(breaks_after) {
        if at > 0 && !script.slow.is_zero() {
            steps.push(Step::Wait(script.slow));
        }
        steps.push(frame(event["type"].as_str().unwrap_or_default(), event));
    }
    match script.fault {
        Some(Fault::Cut(_)) => steps.push(Step::Cut),
        Some(Fault::Stall(_)) => steps.push(Step::Hang),
        Some(Fault::ErrorAfter(_)) => {
            let refusal = stage::scripted_refusal(script, script.error.unwrap_or(500));
            let mut document: Value =
                serde_json::from_slice(&OpenAi.document(&refusal, &ids.request())).unwrap_or_default();
            document["type"] = "error".into();
            steps.push(frame("error", &document));
        }
        _ => {}
    }
    let mut response = Response::new(body::scripted(steps, script.writes));
    let content_type = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
