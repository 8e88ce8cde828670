//! What providers can be asked for beside a conversation.

/// An operation that is not chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Vectors for texts.
    Embeddings,
    /// Images from texts.
    Images,
    /// Texts from speech.
    Transcriptions,
    /// Speech from texts.
    Speech,
}

impl Capability {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Embeddings, Self::Images, Self::Transcriptions, Self::Speech];

    /// The word in `capabilities` and `paths` of data files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Images => "images",
            Self::Transcriptions => "transcriptions",
            Self::Speech => "speech",
        }
    }

    /// What models for it are called in messages: `an embedding model`.
    pub const fn model_words(self) -> &'static str {
        match self {
            Self::Embeddings => "an embedding model",
            Self::Images => "an image model",
            Self::Transcriptions => "a transcription model",
            Self::Speech => "a speech model",
        }
    }

    /// [`crate::model::ModelSpec::mode`] of models for it.
    pub const fn mode(self) -> &'static str {
        match self {
            Self::Embeddings => "embedding",
            Self::Images => "image_generation",
            Self::Transcriptions => "audio_transcription",
            Self::Speech => "audio_speech",
        }
    }

    /// The word for such requests in the request log, and for such models in lists of the management API.
    pub const fn request_type(self) -> &'static str {
        match self {
            Self::Embeddings => "embedding",
            Self::Images => "image",
            Self::Transcriptions => "audio-stt",
            Self::Speech => "audio-tts",
        }
    }

    /// The path in OpenAI's API.
    pub(crate) const fn openai_path(self) -> &'static str {
        match self {
            Self::Embeddings => "/embeddings",
            Self::Images => "/images/generations",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Speech => "/audio/speech",
        }
    }
}

/// What a model is most probably for, by its name alone; `chat` where nothing tells otherwise. For lists; a request is
/// never refused for it.
pub fn mode_by_name(model: &str) -> &'static str {
    const MODES: [(&str, &[&str]); 5] = [
        ("rerank", &["rerank"]),
        ("embedding", &["embed", "/bge-", "/e5-", "/gte-", "/m2-bert", "/voyage-"]),
        ("audio_transcription", &["whisper", "transcribe", "/nova-2", "/nova-3"]),
        ("audio_speech", &["-tts", "/tts-", "/aura-"]),
        (
            "image_generation",
            &["/dall-e", "gpt-image", "/flux", "stable-diffusion", "/imagen-", "seedream", "-image"],
        ),
    ];
    let name = format!("/{}", model.to_ascii_lowercase());
    let known = MODES.iter().find(|(_, marks)| marks.iter().any(|mark| name.contains(mark)));
    known.map_or("chat", |(mode, _)| mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{CAPABILITIES, MODEL_MODES, catalog};

    #[test]
    fn data_files_know_the_words() {
        for capability in Capability::ALL {
            assert!(CAPABILITIES.contains(&capability.as_str()), "{}", capability.as_str());
            assert!(MODEL_MODES.contains(&capability.mode()), "{}", capability.mode());
        }
    }

    #[test]
    fn names_tell_what_models_are_for() {
        for (name, mode) in [
            ("nomic-embed-text", "embedding"),
            ("text-embedding-3-small", "embedding"),
            ("BAAI/bge-m3", "embedding"),
            ("BAAI/bge-reranker-v2-m3", "rerank"),
            ("voyage-4", "embedding"),
            ("whisper-1", "audio_transcription"),
            ("gpt-4o-mini-tts", "audio_speech"),
            ("black-forest-labs/FLUX.1-schnell", "image_generation"),
            ("gemini-3-pro-image", "image_generation"),
            ("gpt-4o", "chat"),
            ("llama3.2", "chat"),
        ] {
            assert_eq!(mode_by_name(name), mode, "{name}");
        }
    }

    #[test]
    fn no_chat_model_of_the_catalogue_is_taken_for_another() {
        for spec in catalog().providers() {
            for row in catalog().models_of(&spec.id).iter().filter(|row| row.mode == "chat") {
                let guessed = mode_by_name(&row.model);
                let may_draw = guessed == "image_generation";
                assert!(guessed == "chat" || may_draw, "{}/{} is taken for {guessed}", spec.id, row.model);
            }
        }
    }
}
