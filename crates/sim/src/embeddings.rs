//! Vectors for texts, in the forms of three vendors: <https://platform.openai.com/docs/api-reference/embeddings>,
//! <https://ai.google.dev/api/embeddings>, <https://docs.ollama.com/api/embed>.
//!
//! Vectors are the same for the same text every time, and near to each other for texts that are alike: each three
//! characters in a row push one component up or down.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use omniroute_wire::json_out::{Array, Object};
use serde_json::Value;

use crate::{
    ask::Ask,
    check::At,
    dialect::{Dialect, Incoming},
    ollama,
    refusal::Refusal,
    script::UsageScript,
};

/// Length of a vector, unless the name or the request says otherwise.
const DIMENSIONS: usize = 8;
/// The longest that can be asked for.
const MAX_DIMENSIONS: u64 = 4_096;
/// Most texts of one request.
const MAX_TEXTS: usize = 2_048;
const MAX_BATCH: usize = 100;
const TASKS: &[&str] = &[
    "TASK_TYPE_UNSPECIFIED",
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
];

/// A way of asking for vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    OpenAi,
    /// One text of Google's, or several.
    Gemini {
        several: bool,
    },
    /// Ollama's, now or as it was.
    Ollama {
        old: bool,
    },
}

/// What is asked for.
pub(crate) struct Wish {
    texts: Vec<String>,
    dimensions: usize,
    packed: bool,
    /// For faults that answer in the place of a vector.
    pub(crate) ask: Ask,
}

impl Form {
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::OpenAi => Dialect::OpenAi,
            Self::Gemini { .. } => Dialect::Gemini,
            Self::Ollama { .. } => Dialect::Ollama,
        }
    }

    /// Judges a request and reads what it asks for.
    pub(crate) fn read(self, incoming: &Incoming<'_>) -> Result<Wish, Refusal> {
        let root = At::root(incoming.body, self.dialect().wire());
        let mut wish = Wish {
            texts: Vec::new(),
            dimensions: incoming.script.dimensions.unwrap_or(DIMENSIONS),
            packed: false,
            ask: Ask { model: incoming.model.to_owned(), ..Ask::default() },
        };
        match self {
            Self::OpenAi => openai(&root, &mut wish)?,
            Self::Gemini { several: false } => gemini(&root, incoming.model, false, &mut wish)?,
            Self::Gemini { several: true } => {
                root.known(&[&["requests", "model"]])?;
                let requests = root.need("requests")?;
                let list = requests.list()?;
                if list.len() > MAX_BATCH {
                    return Err(requests.wrong(&format!("at most {MAX_BATCH} requests can be in one batch")));
                }
                for request in list {
                    gemini(&request, incoming.model, true, &mut wish)?;
                }
            }
            Self::Ollama { old } => ollama(&root, incoming.script.strict, old, &mut wish)?,
        }
        wish.ask.characters = wish.texts.iter().map(|text| text.chars().count()).sum();
        Ok(wish)
    }

    /// The answer.
    pub(crate) fn answer(self, wish: &Wish, incoming: &Incoming<'_>) -> Bytes {
        let script = incoming.script;
        let tokens = wish.texts.iter().map(|text| text.chars().count().div_ceil(4).max(1) as u64).sum();
        let tells = script.usage != UsageScript::Never;
        let vectors: Vec<Vec<f32>> = wish.texts.iter().map(|text| vector(text, wish.dimensions)).collect();
        let mut out = BytesMut::with_capacity(vectors.len() * wish.dimensions * 12 + 256);
        let mut document = Object::begin(&mut out);
        match self {
            Self::OpenAi => {
                document.str("object", "list");
                let mut data = document.array("data");
                let mut places: Vec<usize> = (0..vectors.len()).collect();
                if script.jumbled {
                    places.reverse();
                }
                for at in places {
                    let mut entry = data.object();
                    entry.str("object", "embedding").u64("index", at as u64);
                    if wish.packed && !script.floats {
                        let bytes: Vec<u8> =
                            vectors[at].iter().flat_map(|value| value.to_le_bytes()).collect();
                        entry.str("embedding", &BASE64_STANDARD.encode(bytes));
                    } else {
                        numbers(entry.array("embedding"), &vectors[at]);
                    }
                    entry.end();
                }
                data.end();
                document.str("model", incoming.model);
                if tells {
                    let mut usage = document.object("usage");
                    usage.u64("prompt_tokens", tokens).u64("total_tokens", tokens);
                    usage.end();
                }
            }
            Self::Gemini { several } => {
                if several {
                    let mut list = document.array("embeddings");
                    for vector in &vectors {
                        let mut entry = list.object();
                        numbers(entry.array("values"), vector);
                        entry.end();
                    }
                    list.end();
                } else {
                    let mut entry = document.object("embedding");
                    numbers(entry.array("values"), &vectors[0]);
                    entry.end();
                }
            }
            Self::Ollama { old: true } => {
                numbers(document.array("embedding"), vectors.first().map_or(&[][..], Vec::as_slice));
            }
            Self::Ollama { old: false } => {
                document.str("model", incoming.model);
                let mut list = document.array("embeddings");
                for vector in &vectors {
                    let mut inner = BytesMut::new();
                    numbers(Array::begin(&mut inner), vector);
                    list.raw(std::str::from_utf8(&inner).unwrap_or("[]"));
                }
                list.end();
                document.u64("total_duration", 14_143_917).u64("load_duration", 1_019_500);
                if tells {
                    document.u64("prompt_eval_count", tokens);
                }
            }
        }
        document.end();
        out.freeze()
    }
}

fn openai(root: &At<'_>, wish: &mut Wish) -> Result<(), Refusal> {
    root.known(&[&["model", "input", "dimensions", "encoding_format", "user"]])?;
    if let Some(user) = root.get("user") {
        user.str()?;
    }
    if let Some(format) = root.get("encoding_format") {
        wish.packed = format.one_of(&["float", "base64"])? == "base64";
    }
    dimensions(root, "dimensions", wish)?;
    let input = root.need("input")?;
    if input.value.is_string() {
        wish.texts.push(input.text()?.to_owned());
        return Ok(());
    }
    let list = input.list()?;
    if list.first().is_some_and(|first| first.value.is_number()) {
        wish.texts.push(tokens(&list)?);
        return Ok(());
    }
    if list.len() > MAX_TEXTS {
        return Err(input.wrong(&format!("has at most {MAX_TEXTS} elements")));
    }
    for element in list {
        wish.texts.push(match element.value {
            Value::Array(_) => tokens(&element.list()?)?,
            _ => element.text()?.to_owned(),
        });
    }
    Ok(())
}

/// Tokens stand for themselves.
fn tokens(list: &[At<'_>]) -> Result<String, Refusal> {
    let numbers: Result<Vec<String>, Refusal> =
        list.iter().map(|token| token.integer(0).map(|number| number.to_string())).collect();
    Ok(numbers?.join(" "))
}

fn gemini(request: &At<'_>, model: &str, names: bool, wish: &mut Wish) -> Result<(), Refusal> {
    request.known(&[&["model", "content", "taskType", "title", "outputDimensionality"]])?;
    let named = if names { Some(request.need("model")?) } else { request.get("model") };
    if let Some(named) = named
        && named.str()? != format!("models/{model}")
    {
        return Err(named.wrong(&format!("must be models/{model}, as the path says")));
    }
    let task = request.get("taskType").map(|task| task.one_of(TASKS)).transpose()?;
    if let Some(title) = request.get("title") {
        title.str()?;
        if task != Some("RETRIEVAL_DOCUMENT") {
            return Err(title.wrong("is only allowed with RETRIEVAL_DOCUMENT"));
        }
    }
    dimensions(request, "outputDimensionality", wish)?;
    let content = request.need("content")?;
    content.known(&[&["parts", "role"]])?;
    let mut text = String::new();
    for part in content.need("parts")?.list()? {
        part.known(&[&["text"]])?;
        text.push_str(part.need("text")?.str()?);
    }
    if text.is_empty() {
        return Err(content.wrong("is empty"));
    }
    wish.texts.push(text);
    Ok(())
}

fn ollama(root: &At<'_>, strict: bool, old: bool, wish: &mut Wish) -> Result<(), Refusal> {
    let common: &[&str] = &["model", "options", "keep_alive"];
    let own: &[&str] = if old { &["prompt"] } else { &["input", "truncate", "dimensions"] };
    ollama::known(root, strict, &[common, own])?;
    if let Some(options) = root.get("options") {
        options.object()?;
    }
    if old {
        // Without a text the model is only loaded.
        let prompt = root.get("prompt").map(|prompt| prompt.str()).transpose()?;
        wish.texts.extend(prompt.filter(|text| !text.is_empty()).map(str::to_owned));
        return Ok(());
    }
    if let Some(truncate) = root.get("truncate") {
        truncate.bool()?;
    }
    dimensions(root, "dimensions", wish)?;
    match root.get("input") {
        None => {}
        Some(input) if input.value.is_string() => {
            wish.texts.extend(Some(input.str()?).filter(|text| !text.is_empty()).map(str::to_owned));
        }
        Some(input) => {
            for element in input.array()? {
                wish.texts.push(element.str()?.to_owned());
            }
        }
    }
    Ok(())
}

fn dimensions(at: &At<'_>, name: &str, wish: &mut Wish) -> Result<(), Refusal> {
    let Some(asked) = at.get(name) else { return Ok(()) };
    match asked.integer(1)? {
        count if count <= MAX_DIMENSIONS => wish.dimensions = usize::try_from(count).unwrap_or(DIMENSIONS),
        _ => return Err(asked.wrong(&format!("is at most {MAX_DIMENSIONS}"))),
    }
    Ok(())
}

fn numbers(mut list: Array<'_>, vector: &[f32]) {
    for value in vector {
        list.raw(&value.to_string());
    }
    list.end();
}

/// A vector of length one.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut values = vec![0_f32; dimensions];
    let padded: Vec<char> = format!(" {} ", text.to_lowercase()).chars().collect();
    for three in padded.windows(3.min(padded.len())) {
        let hash = three.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, letter| {
            (hash ^ u64::from(*letter)).wrapping_mul(0x0100_0000_01b3)
        });
        let at = usize::try_from((hash >> 8) % dimensions as u64).unwrap_or(0);
        values[at] += if hash >> 63 == 0 { 1.0 } else { -1.0 };
    }
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length == 0.0 {
        values[0] = 1.0;
        return values;
    }
    values.iter().map(|value| value / length).collect()
}
