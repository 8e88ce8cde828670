//! Embeddings: vectors for texts. A request is read in the client's form, written in the upstream's, and the same for the
//! answer; where both are one form, the client's bytes are edited and the upstream's are passed on.
//!
//! The canonical form is small: a list of [items](EmbedRequest) as spans of the client's body, and what is wanted of
//! their vectors. Vectors stay the text they came in unless the client wants another [`Encoding`].

mod bedrock;
mod gemini;
mod ollama;
mod openai;
mod vector;

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use omniroute_wire::splice::Splice;

use crate::{
    DecodeError, EncodeError, Encoded, estimate,
    ir::{Loss, LossAction},
    json_in,
};

pub use vector::{Encoding, Vector};

/// Most texts of one request.
pub const MAX_ITEMS: usize = 2_048;

/// A form in which embeddings are asked for and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// OpenAI's `/embeddings`.
    OpenAi,
    /// Google's `:embedContent`, for one text.
    GeminiOne,
    /// Google's `:batchEmbedContents`.
    GeminiBatch,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's `/api/embeddings`, for one text.
    OllamaOne,
    /// What Amazon's models take at Bedrock, one text at a time.
    BedrockTitan,
    /// What Cohere's models take at Bedrock.
    BedrockCohere,
}

/// What an upstream and its model make of a request. Chosen by provider and model data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedCaps {
    /// Most texts of one call.
    pub max_items: usize,
    /// Whether it writes vectors in base64.
    pub base64: bool,
    /// Whether `encoding_format` may say that vectors are wanted as lists.
    pub float_word: bool,
    /// Whether it takes lists of tokens in the place of texts.
    pub token_lists: bool,
    /// The words of `input_type` for questions and for what is searched, where it has that member.
    pub input_types: Option<[&'static str; 2]>,
    /// Whether it wants `input_type` in every request.
    pub needs_input_type: bool,
    /// Its name for `dimensions`.
    pub dimensions_name: &'static str,
    /// Whether vectors have one length only.
    pub fixed_dimensions: bool,
    /// The longest vectors that there are, if that is known.
    pub max_dimensions: Option<u64>,
}

impl Default for EmbedCaps {
    fn default() -> Self {
        Self {
            max_items: MAX_ITEMS,
            base64: true,
            float_word: true,
            token_lists: true,
            input_types: None,
            needs_input_type: false,
            dimensions_name: "dimensions",
            fixed_dimensions: false,
            max_dimensions: None,
        }
    }
}

/// What vectors are for, where the asked model makes a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    Query,
    Document,
    /// In Google's words.
    Task(&'static str),
    /// A word that only its own dialect may know.
    Other,
}

/// A request for embeddings.
#[derive(Debug, Clone)]
pub struct EmbedRequest {
    /// How it was asked.
    pub form: Form,
    /// The model that the body names; empty where the path does.
    pub model: String,
    /// The length of vectors that is wanted.
    pub dimensions: Option<u64>,
    /// How the client wants its vectors.
    pub encoding: Encoding,
    body: Bytes,
    items: Vec<Item>,
    purpose: Option<Purpose>,
    /// Whether texts that are too long are to be cut.
    truncate: Option<bool>,
    /// Members that only the client's dialect knows.
    others: Vec<Loss>,
}

/// Something that a vector is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    /// Where it stands in the body.
    span: Range<usize>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// So many tokens.
    Tokens(u64),
    /// Something that only the client's dialect knows.
    Other,
}

/// The vectors of one upstream answer.
#[derive(Debug, Clone)]
pub struct EmbedAnswer {
    /// One for each text, in their order.
    pub vectors: Vec<Vector>,
    /// Tokens of the texts, if the upstream counted them.
    pub input_tokens: Option<u64>,
    body: Bytes,
    /// Whether the body has the vectors in their order.
    is_straight: bool,
}

impl Form {
    /// Where the path ends otherwise than that of its vendor's usual form, and how that ends.
    pub fn path_ending(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::GeminiOne => Some((":batchEmbedContents", ":embedContent")),
            Self::OllamaOne => Some(("/api/embed", "/api/embeddings")),
            Self::OpenAi | Self::GeminiBatch | Self::Ollama | Self::BedrockTitan | Self::BedrockCohere => {
                None
            }
        }
    }

    /// The form in which an upstream of `dialect` is asked, by the form of the client: its own where it can be.
    pub const fn upstream(self, dialect: Self) -> Self {
        match (self, dialect) {
            (Self::GeminiOne, Self::GeminiOne | Self::GeminiBatch) => Self::GeminiOne,
            (_, Self::GeminiOne) => Self::GeminiBatch,
            (Self::OllamaOne, Self::Ollama | Self::OllamaOne) => Self::OllamaOne,
            (_, Self::OllamaOne) => Self::Ollama,
            (_, other) => other,
        }
    }

    /// The form in which a model is asked at Bedrock; `None` for those whose form is not known.
    pub fn at_bedrock(model: &str) -> Option<Self> {
        bedrock::form_of(model)
    }
}

impl EmbedRequest {
    /// Reads a request.
    pub fn read(form: Form, body: &Bytes) -> Result<Self, DecodeError> {
        let body = match json_in::text(body)? {
            Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        let request = match form {
            Form::OpenAi => openai::read(&body),
            Form::GeminiOne | Form::GeminiBatch => gemini::read(form, &body),
            Form::Ollama | Form::OllamaOne => ollama::read(form, &body),
            Form::BedrockTitan | Form::BedrockCohere => {
                Err(broken("Bedrock's forms are those of upstreams; no client speaks them".to_owned()))
            }
        }?;
        if request.items.len() > MAX_ITEMS {
            let path = request.input_name();
            let (count, param) = (request.items.len(), Some(path.to_owned()));
            let message = format!("`{path}` has {count} texts; at most {MAX_ITEMS} can be sent at once");
            return Err(DecodeError { code: "invalid_value", param, message });
        }
        Ok(request)
    }

    /// A request of these texts, in OpenAI's form.
    pub fn of_texts(model: &str, texts: &[String]) -> Result<Self, DecodeError> {
        Self::read(Form::OpenAi, &openai::of_texts(model, texts))
    }

    /// How many vectors are wanted.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to be made a vector of; only Ollama's form has such requests.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The answer to a request without texts, in the form that has such.
    pub fn of_nothing(&self) -> Option<Bytes> {
        ollama::of_nothing(self, &self.model)
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Roughly how many tokens some of the texts have.
    pub fn estimated_tokens(&self, items: Range<usize>) -> u64 {
        let tokens = self.items[items].iter().map(|item| match item.kind {
            Kind::Tokens(count) => count,
            Kind::Text => estimate::text(&self.text(item)).max(1),
            Kind::Other => (item.span.len() as u64).div_ceil(4),
        });
        tokens.sum::<u64>().max(1)
    }

    /// Whether a target can do what is asked.
    pub fn check(&self, to: Form, caps: &EmbedCaps) -> Result<(), EncodeError> {
        let refuse = |path: &str, code, message: String| {
            Err(EncodeError { code, param: Some(path.to_owned()), message })
        };
        let input = self.input_name();
        let is_other = |kind: fn(&Kind) -> bool| self.items.iter().any(|item| kind(&item.kind));
        let takes_tokens = caps.token_lists && to == Form::OpenAi;
        if is_other(|kind| matches!(kind, Kind::Tokens(_))) && !takes_tokens {
            let message = format!(
                "`{input}` holds lists of tokens, which mean something to OpenAI's models only; send texts"
            );
            return refuse(input, "unsupported_content", message);
        }
        if is_other(|kind| *kind == Kind::Other) && !self.stays(to) {
            let message =
                format!("`{input}` holds something else than texts, which this model does not take");
            return refuse(input, "unsupported_content", message);
        }
        if self.form == Form::GeminiBatch && !self.stays(to) {
            gemini::check_alike(self)?;
        }
        let Some(asked) = self.dimensions else { return Ok(()) };
        let path = self.dimensions_name();
        match caps.max_dimensions {
            Some(most) if asked > most => {
                let message = format!("`{path}` must be at most {most} for this model");
                refuse(path, "invalid_value", message)
            }
            known if caps.fixed_dimensions && known != Some(asked) => {
                let has = known.map_or_else(String::new, |known| format!(" They have {known}."));
                let message =
                    format!("`{path}` cannot be set: the vectors of this model have one length only.{has}");
                refuse(path, "unsupported_parameter", message)
            }
            _ => Ok(()),
        }
    }

    /// Writes the request for some of the texts. `model` is the upstream's name.
    pub fn write(&self, to: Form, items: Range<usize>, model: &str, caps: &EmbedCaps) -> Encoded {
        if self.form == to {
            let body = match to {
                Form::OpenAi => openai::edit(self, items, model, caps),
                Form::GeminiOne | Form::GeminiBatch => gemini::edit(self, items, model),
                Form::Ollama | Form::OllamaOne => ollama::edit(self, items, model),
                // No client has them, so nothing is there to be edited.
                Form::BedrockTitan | Form::BedrockCohere => self.body.clone(),
            };
            return Encoded { body, losses: Vec::new() };
        }
        let (body, mut losses) = match to {
            Form::OpenAi => openai::write(self, items, model, caps),
            Form::GeminiOne | Form::GeminiBatch => gemini::write(self, items, model),
            Form::Ollama | Form::OllamaOne => ollama::write(self, items, model),
            Form::BedrockTitan => bedrock::write_titan(self, items),
            Form::BedrockCohere => bedrock::write_cohere(self, items, model),
        };
        losses.extend(self.others.iter().cloned());
        Encoded { body, losses }
    }

    /// The client's answer from those of the upstream, one for each call. `model` is the name the client asked for.
    pub fn answer(
        &self,
        from: Form,
        answers: &[EmbedAnswer],
        tokens: u64,
        model: &str,
    ) -> Result<Bytes, DecodeError> {
        if let [only] = answers
            && self.form == from
            && let Some(relayed) = self.relayed(only, model)
        {
            return Ok(relayed.to_bytes());
        }
        let vectors: Vec<&Vector> = answers.iter().flat_map(|answer| &answer.vectors).collect();
        match self.form {
            Form::OpenAi => openai::answer(&vectors, self.encoding, tokens, model),
            Form::GeminiOne => gemini::answer_one(&vectors),
            Form::GeminiBatch => gemini::answer(&vectors),
            Form::Ollama => ollama::answer(&vectors, tokens, model),
            Form::OllamaOne => ollama::answer_one(&vectors),
            Form::BedrockTitan | Form::BedrockCohere => {
                Err(broken("Bedrock's forms are those of upstreams; no client reads them".to_owned()))
            }
        }
    }

    /// The upstream's own bytes, where they are what the client wants but for the name of the model.
    fn relayed(&self, answer: &EmbedAnswer, model: &str) -> Option<Splice> {
        match self.form {
            Form::OpenAi => {
                let is_as_wanted = answer.vectors.iter().all(|vector| vector.encoding() == self.encoding);
                let is_complete = answer.is_straight && answer.input_tokens.is_some();
                (is_as_wanted && is_complete).then(|| crate::dialect::replace_model(&answer.body, model))
            }
            Form::GeminiOne | Form::GeminiBatch => Some(Splice::new(answer.body.clone())),
            Form::Ollama | Form::OllamaOne => Some(crate::dialect::replace_model(&answer.body, model)),
            Form::BedrockTitan | Form::BedrockCohere => None,
        }
    }

    /// Whether the request goes to an upstream of the client's own dialect.
    fn stays(&self, to: Form) -> bool {
        self.form == to
    }

    fn raw(&self, item: &Item) -> &str {
        std::str::from_utf8(&self.body[item.span.clone()]).unwrap_or_default()
    }

    fn text(&self, item: &Item) -> Cow<'_, str> {
        match self.form {
            Form::OpenAi | Form::Ollama | Form::OllamaOne | Form::BedrockTitan | Form::BedrockCohere => {
                omniroute_wire::envelope::as_str(self.raw(item)).unwrap_or_default()
            }
            Form::GeminiOne | Form::GeminiBatch => Cow::Owned(gemini::text(self.raw(item))),
        }
    }

    const fn input_name(&self) -> &'static str {
        match self.form {
            Form::OpenAi | Form::Ollama => "input",
            Form::OllamaOne => "prompt",
            Form::GeminiOne => "content",
            Form::GeminiBatch => "requests",
            Form::BedrockTitan => "inputText",
            Form::BedrockCohere => "texts",
        }
    }

    /// The member that says what the vectors are for.
    const fn purpose_name(&self) -> &'static str {
        match self.form {
            Form::GeminiOne | Form::GeminiBatch => "taskType",
            Form::OpenAi | Form::Ollama | Form::OllamaOne | Form::BedrockTitan | Form::BedrockCohere => {
                "input_type"
            }
        }
    }

    const fn dimensions_name(&self) -> &'static str {
        match self.form {
            Form::OpenAi | Form::Ollama | Form::OllamaOne | Form::BedrockTitan | Form::BedrockCohere => {
                "dimensions"
            }
            Form::GeminiOne => "outputDimensionality",
            Form::GeminiBatch => "requests[0].outputDimensionality",
        }
    }
}

/// Reads an upstream's answer to a call for `count` texts.
pub fn read_answer(form: Form, body: &Bytes, count: usize) -> Result<EmbedAnswer, DecodeError> {
    let answer = match form {
        Form::OpenAi => openai::read_answer(body),
        Form::GeminiOne | Form::GeminiBatch => gemini::read_answer(body),
        Form::Ollama | Form::OllamaOne => ollama::read_answer(body),
        Form::BedrockTitan => bedrock::read_titan(body),
        Form::BedrockCohere => bedrock::read_cohere(body),
    }?;
    let found = answer.vectors.len();
    if found != count {
        return Err(broken(format!("the upstream answered with {found} vectors for {count} texts")));
    }
    Ok(answer)
}

/// That an answer is not one.
fn broken(message: String) -> DecodeError {
    DecodeError { code: "bad_gateway", param: None, message }
}

/// That a text which must not be is empty.
fn empty(path: &str) -> DecodeError {
    json_in::wrong_value(path, "a text that is not empty, or a list of such")
}

/// That something is left out.
fn dropped(path: impl Into<Cow<'static, str>>, silent: bool) -> Loss {
    Loss { path: path.into(), action: LossAction::Dropped, silent }
}

/// Where a piece of a text stands in it.
fn span_in(whole: &str, piece: &str) -> Range<usize> {
    let start = (piece.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start + piece.len()
}

/// Checks the readers on arbitrary bytes: what can be read can be written for every upstream.
#[doc(hidden)]
pub fn fuzz_embeddings(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let forms = [
        Form::OpenAi,
        Form::GeminiOne,
        Form::GeminiBatch,
        Form::Ollama,
        Form::OllamaOne,
        Form::BedrockTitan,
        Form::BedrockCohere,
    ];
    for form in forms {
        if let Ok(answer) = read_answer(form, &body, 1) {
            for vector in &answer.vectors {
                let _ = vector.to(Encoding::Base64);
                let _ = vector.to(Encoding::Floats);
            }
        }
        let Ok(request) = EmbedRequest::read(form, &body) else { continue };
        if request.is_empty() {
            // No upstream is asked for the vectors of nothing.
            assert!(request.of_nothing().is_some(), "{form:?}");
            continue;
        }
        let caps = EmbedCaps::default();
        for upstream in [Form::OpenAi, Form::GeminiBatch, Form::Ollama] {
            let to = form.upstream(upstream);
            if request.check(to, &caps).is_ok() {
                let written = request.write(to, 0..request.len(), "m", &caps);
                assert!(
                    serde_json::from_slice::<serde::de::IgnoredAny>(&written.body).is_ok(),
                    "{form:?} {to:?}"
                );
                let again = EmbedRequest::read(to, &written.body).expect("what was written can be read");
                assert_eq!(again.len(), request.len());
            }
        }
        for to in [Form::BedrockTitan, Form::BedrockCohere] {
            if request.check(to, &caps).is_ok() {
                let written = request.write(to, 0..1, "m", &caps);
                assert!(
                    serde_json::from_slice::<serde::de::IgnoredAny>(&written.body).is_ok(),
                    "{form:?} {to:?}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
