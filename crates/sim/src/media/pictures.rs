//! OpenAI's pictures, with what each model and each house refuses.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Response, header, request::Parts};
use serde_json::{Value, json};

use super::{Errand, content_type, is_silent, json, play, script, vendors_name};
use crate::{SimBody, Simulator, check::At, openai::OpenAi, refusal::Refusal, stage::Ids};

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
struct Rules {
    fields: &'static [&'static str],
    most: u64,
    sizes: &'static [&'static str],
    /// The words for how pictures are wanted; the first goes without saying.
    formats: &'static [&'static str],
}

const ANY: Rules = Rules {
    fields: &["model", "prompt", "n", "size", "quality", "style", "response_format", "user"],
    most: 10,
    sizes: &[],
    formats: &["url", "b64_json"],
};

fn rules(house: &str, model: &str) -> Rules {
    match (house, model) {
        ("xai", _) => Rules { fields: &["model", "prompt", "n", "response_format", "user"], ..ANY },
        ("together", _) => Rules {
            fields: &["model", "prompt", "n", "width", "height", "steps", "seed", "response_format"],
            most: 4,
            formats: &["url", "base64"],
            ..ANY
        },
        (_, "dall-e-3") => Rules { most: 1, sizes: &["1024x1024", "1024x1792", "1792x1024"], ..ANY },
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
            ..ANY
        },
        _ => ANY,
    }
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
        if content_type(parts) != super::JSON {
            return Err(Refusal::request("the content type must be application/json"));
        }
        let body: Value =
            serde_json::from_slice(body).map_err(|error| Refusal::request(format!("no JSON: {error}")))?;
        let root = At::root(&body, &OpenAi);
        let name = root.need("model")?.text()?;
        let script = script(name, KNOWN, &OpenAi)?;
        let model = vendors_name(name);
        if errand.house == "retired" && model.starts_with("dall-e") {
            let message = format!("The model `{model}` has been deprecated, learn more in the documentation");
            return Err(Refusal { param: Some("model".to_owned()), ..Refusal::status(404, message) });
        }
        let rules = rules(errand.house, model);
        root.known(&[rules.fields])?;
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
        if let Some(response) = self.act(key, name, &script, ids).await? {
            return Ok(response);
        }
        let host =
            parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("sim.invalid");
        let picture = |at: u64| {
            let mut entry = match format {
                "url" => json!({"url": format!("http://{host}/v1/pictures/{}-{at}.png", ids.answer("img-"))}),
                _ => json!({"b64_json": PNG}),
            };
            if model == "dall-e-3" {
                entry["revised_prompt"] = format!("A picture of: {prompt}").into();
            }
            if errand.house == "together" {
                entry["index"] = at.into();
            }
            entry
        };
        let count = if is_silent(&script) { 0 } else { count };
        let data: Vec<Value> = (0..count).map(picture).collect();
        let mut answer = json!({"created": ids.created(), "data": data});
        if model.starts_with("gpt-image") {
            let text = prompt.chars().count().div_ceil(4) as u64;
            let output = 1056 * count;
            answer["output_format"] = root.get("output_format").map_or("png".into(), |it| it.value.clone());
            answer["usage"] = json!({"input_tokens": text, "output_tokens": output, "total_tokens": text + output,
                "input_tokens_details": {"text_tokens": text, "image_tokens": 0}});
        }
        Ok(play(json(&answer), super::JSON, &script))
    }
}
