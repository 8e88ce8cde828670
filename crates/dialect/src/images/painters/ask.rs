//! What each vendor is asked.

use bytes::Bytes;

use super::super::request::ImageRequest;
use super::super::size;
use super::Asked;
use crate::DecodeError;
use crate::form::FormWriter;
use crate::ir::{Loss, LossAction, loss};
use crate::json_in::wrong_value;

/// Members that are said in other words, or are between the client and the gateway.
const SAID: [&str; 8] =
    ["model", "prompt", "n", "size", "response_format", "stream", "partial_images", "user"];
/// Members for which none of them has words.
const UNSAID: [&str; 5] = ["quality", "style", "background", "output_compression", "moderation"];
/// Proportions that Stability knows, and its models at Replicate from the third on.
const OF_STABILITY: &[&str] = &["1:1", "2:3", "3:2", "4:5", "5:4", "9:16", "16:9", "9:21", "21:9"];
/// Those that the others at Replicate have in common.
const OF_REPLICATE: &[&str] = &["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9"];
/// What Hyperbolic, which wants to be told, is told where the client says nothing.
const USUAL: (u32, u32) = (1024, 1024);

pub(super) fn fal(request: &ImageRequest) -> Result<Asked, DecodeError> {
    let mut said = vec![("prompt", quoted(&request.prompt)), ("num_images", request.count.to_string())];
    if let Some((width, height)) = sides(request)? {
        said.push(("image_size", format!("{{\"width\":{width},\"height\":{height}}}")));
    }
    Ok(document(request, &said, &[]))
}

pub(super) fn hyperbolic(request: &ImageRequest, model: &str) -> Result<Asked, DecodeError> {
    let (width, height) = sides(request)?.unwrap_or(USUAL);
    let said = [
        ("model_name", quoted(model)),
        ("prompt", quoted(&request.prompt)),
        ("width", width.to_string()),
        ("height", height.to_string()),
    ];
    // It says in which format it answers, and is not told.
    Ok(document(request, &said, &["output_format"]))
}

pub(super) fn black_forest(request: &ImageRequest) -> Result<Asked, DecodeError> {
    let mut said = vec![("prompt", quoted(&request.prompt))];
    if let Some((width, height)) = sides(request)? {
        said.extend([("width", width.to_string()), ("height", height.to_string())]);
    }
    Ok(document(request, &said, &[]))
}

/// Its models have inputs of their own; those that paint have a proportion, or a width and a height.
pub(super) fn replicate(request: &ImageRequest, model: &str) -> Result<Asked, DecodeError> {
    let mut said = vec![("prompt", quoted(&request.prompt))];
    let mut losses = Vec::new();
    let is_newer = model.contains("stable-diffusion-3");
    let has_sides = !is_newer && ["sdxl", "stable-diffusion"].iter().any(|part| model.contains(part));
    match sides(request)? {
        Some((width, height)) if has_sides => {
            said.extend([("width", width.to_string()), ("height", height.to_string())]);
        }
        Some(sides) => {
            let known = if is_newer { OF_STABILITY } else { OF_REPLICATE };
            losses.extend(proportion(sides, known, &mut said));
        }
        None => {}
    }
    let is_jpeg = request.member("output_format").is_some_and(|raw| raw.get() == "\"jpeg\"");
    if is_jpeg {
        said.push(("output_format", quoted("jpg")));
    }
    let is_said = |name: &str| is_jpeg && name == "output_format";
    let (body, more) = (own(request, &said, is_said), unsaid(request, &[]));
    losses.extend(more);
    let mut whole = Vec::with_capacity(body.len() + 128);
    whole.extend_from_slice(b"{");
    if let Some((_, version)) = model.split_once(':') {
        whole.extend_from_slice(format!("\"version\":{},", quoted(version)).as_bytes());
    }
    whole.extend_from_slice(b"\"input\":");
    whole.extend_from_slice(&body);
    whole.extend_from_slice(b"}");
    Ok(Asked { body: whole.into(), content_type: None, losses })
}

pub(super) fn stability(request: &ImageRequest, model: &str, boundary: &str) -> Result<Asked, DecodeError> {
    let mut losses = unsaid(request, &[]);
    let mut said = Vec::new();
    if let Some(sides) = sides(request)? {
        losses.extend(proportion(sides, OF_STABILITY, &mut said));
    }
    let mut writer = FormWriter::new(boundary);
    writer.field("prompt", &request.prompt);
    if !matches!(model, "core" | "ultra") {
        writer.field("model", model);
    }
    for (name, value) in said {
        writer.field(name, value.trim_matches('"'));
    }
    for (name, value) in request.own_fields(|name| SAID.contains(&name) || UNSAID.contains(&name)) {
        writer.field(&name, &value);
    }
    let form = writer.end();
    Ok(Asked { body: form.head, content_type: Some(form.content_type), losses })
}

/// A document of what is said and of the members that are the vendor's own; `without` are some that this one has no word
/// for.
fn document(request: &ImageRequest, said: &[(&str, String)], without: &[&str]) -> Asked {
    let body = own(request, said, |name| without.contains(&name));
    Asked { body, content_type: None, losses: unsaid(request, without) }
}

/// What is said, and the members that are the vendor's own, but for those that are `left` out.
fn own(request: &ImageRequest, said: &[(&str, String)], left: impl Fn(&str) -> bool) -> Bytes {
    let is_left = |name: &str| SAID.contains(&name) || UNSAID.contains(&name) || left(name);
    let said: Vec<_> = said.iter().map(|(name, json)| (*name, json.as_str())).collect();
    request.own_document(is_left, &said)
}

fn unsaid(request: &ImageRequest, without: &[&str]) -> Vec<Loss> {
    let says_something =
        |name: &&str| request.member(name).is_some_and(|raw| !matches!(raw.get(), "null" | "\"auto\""));
    let names = UNSAID.iter().chain(without).copied().filter(says_something);
    names.map(|name| loss(name.to_owned(), LossAction::Dropped)).collect()
}

/// The size that is asked for; `None` where the vendor is to choose.
fn sides(request: &ImageRequest) -> Result<Option<(u32, u32)>, DecodeError> {
    let Some(size) = request.size.as_deref().filter(|size| *size != "auto") else { return Ok(None) };
    let wrong = || wrong_value("size", "a width and a height such as `1024x768` for this model");
    size::sides(size).map(Some).ok_or_else(wrong)
}

/// Says a size as the one of the known proportions that comes nearest.
fn proportion(
    sides: (u32, u32),
    known: &[&'static str],
    said: &mut Vec<(&'static str, String)>,
) -> Option<Loss> {
    let nearest = size::nearest(sides, known)?;
    said.push(("aspect_ratio", quoted(nearest)));
    Some(loss("size", LossAction::Mapped))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::Painter;
    use super::*;

    fn asked(painter: Painter, model: &str, more: &str) -> (String, Vec<String>) {
        let body = format!("{{\"model\":\"p/m\",\"prompt\":\"a \\\"cat\\\"\"{more}}}");
        let request = ImageRequest::read(body.as_bytes()).unwrap();
        let asked = painter.write(&request, model, "B").unwrap();
        let losses = asked.losses.iter().map(|loss| format!("{} {}", loss.path, loss.action.as_str()));
        (String::from_utf8(asked.body.to_vec()).unwrap(), losses.collect())
    }

    #[test]
    fn each_is_asked_in_its_own_words() {
        const WISH: &str = r#","n":2,"size":"1024x768","quality":"hd","response_format":"b64_json","seed":7,"output_format":"png","user":"u""#;
        for (painter, model, expected, losses) in [
            (
                Painter::Fal,
                "fal-ai/flux/schnell",
                r#"{"seed":7,"output_format":"png","prompt":"a \"cat\"","num_images":2,"image_size":{"width":1024,"height":768}}"#,
                &["quality dropped"][..],
            ),
            (
                Painter::Hyperbolic,
                "SDXL1.0-base",
                r#"{"seed":7,"model_name":"SDXL1.0-base","prompt":"a \"cat\"","width":1024,"height":768}"#,
                &["quality dropped", "output_format dropped"],
            ),
            (
                Painter::BlackForest,
                "flux-pro-1.1",
                r#"{"seed":7,"output_format":"png","prompt":"a \"cat\"","width":1024,"height":768}"#,
                &["quality dropped"],
            ),
            (
                Painter::Replicate,
                "black-forest-labs/flux-1.1-pro",
                r#"{"input":{"seed":7,"output_format":"png","prompt":"a \"cat\"","aspect_ratio":"4:3"}}"#,
                &["size mapped", "quality dropped"],
            ),
            (
                Painter::Replicate,
                "stability-ai/sdxl:abc",
                r#"{"version":"abc","input":{"seed":7,"output_format":"png","prompt":"a \"cat\"","width":1024,"height":768}}"#,
                &["quality dropped"],
            ),
        ] {
            let (body, lost) = asked(painter, model, WISH);
            assert_eq!(body, expected);
            assert_eq!(lost, losses, "{body}");
        }
    }

    #[test]
    fn models_at_replicate_have_proportions_and_words_of_their_own() {
        const FLUX: &str = "black-forest-labs/flux-1.1-pro";
        const NEWER: &str = "stability-ai/stable-diffusion-3.5-large";
        for (model, size, format, expected) in [
            (FLUX, "2560x1080", "jpeg", r#""aspect_ratio":"16:9","output_format":"jpg""#),
            (FLUX, "1080x2560", "webp", r#""aspect_ratio":"9:16""#),
            (NEWER, "2560x1080", "png", r#""aspect_ratio":"21:9""#),
            (NEWER, "1024x768", "jpeg", r#""aspect_ratio":"5:4","output_format":"jpg""#),
            ("stability-ai/stable-diffusion:a", "512x768", "png", r#""width":512,"height":768"#),
        ] {
            let more = format!(r#","size":"{size}","output_format":"{format}""#);
            let (body, _) = asked(Painter::Replicate, model, &more);
            assert!(body.ends_with(&format!("{expected}}}}}")), "{model} {size}: {body}");
            let own = format!(r#""output_format":"{format}""#);
            assert_eq!(body.contains(&own), format != "jpeg", "{body}");
        }
    }

    #[test]
    fn stability_gets_a_form() {
        let (form, losses) = asked(
            Painter::Stability,
            "sd3.5-large",
            r#","size":"1024x1024","output_format":"webp","seed":7"#,
        );
        for part in [
            "name=\"prompt\"\r\n\r\na \"cat\"\r\n",
            "name=\"model\"\r\n\r\nsd3.5-large\r\n",
            "name=\"aspect_ratio\"\r\n\r\n1:1\r\n",
            "name=\"output_format\"\r\n\r\nwebp\r\n",
            "name=\"seed\"\r\n\r\n7\r\n--B--\r\n",
        ] {
            assert!(form.contains(part), "{part} is not in {form}");
        }
        assert_eq!(losses, ["size mapped"]);
        let (form, _) = asked(Painter::Stability, "core", "");
        assert!(!form.contains("name=\"model\""), "{form}");
        for (model, place) in [("core", "core"), ("ultra", "ultra"), ("sd3.5-large", "sd3")] {
            assert_eq!(Painter::Stability.place(model), place);
        }
    }

    #[test]
    fn a_size_that_is_none_is_refused() {
        let request = ImageRequest::read(br#"{"model":"m","prompt":"a","size":"large"}"#).unwrap();
        for painter in
            [Painter::Fal, Painter::Hyperbolic, Painter::BlackForest, Painter::Replicate, Painter::Stability]
        {
            let error = painter.write(&request, "m", "B").unwrap_err();
            assert_eq!(error.param.as_deref(), Some("size"), "{painter:?}");
        }
        let request = ImageRequest::read(br#"{"model":"m","prompt":"a","size":"auto"}"#).unwrap();
        let asked = Painter::Fal.write(&request, "m", "B").unwrap();
        assert_eq!(&asked.body[..], br#"{"prompt":"a","num_images":1}"#);
    }
}
