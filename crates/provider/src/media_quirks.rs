//! In what providers and models differ from OpenAI where pictures and sound are concerned. What is not known to be
//! otherwise is as at OpenAI.

use http::Uri;
use http::uri::Authority;
use omniroute_dialect::audio::Format;
use omniroute_dialect::images::{Edits, Quirks};

use crate::ProviderSpec;
use crate::spec::Category;

/// Models that are known by a part of their name, whoever serves them.
const IMAGE_MODELS: [(&str, Quirks); 3] = [
    ("dall-e-3", Quirks { one_at_a_time: true, ..NONE }),
    ("gpt-image", GPT_IMAGE),
    ("chatgpt-image", GPT_IMAGE),
];

const GPT_IMAGE: Quirks = Quirks { refused: &["response_format", "style"], streams: true, ..NONE };

/// Providers whose form differs, whatever the model.
const IMAGE_PROVIDERS: [(&str, Quirks); 9] = [
    // https://docs.byteplus.com/en/docs/ModelArk/1541523
    ("byteplus", ONE),
    // https://openrouter.ai/docs/guides/overview/multimodal/image-generation: what a model does not know is refused there
    ("openrouter", Quirks { refused: &["response_format", "style", "moderation", "user"], ..NONE }),
    // https://docs.siliconflow.cn/api-reference/images/images-generations
    ("siliconflow", SILICONFLOW),
    ("siliconflow-cn", SILICONFLOW),
    ("together", Quirks { refused: &["quality", "style"], sides: true, base64_word: Some("base64"), ..NONE }),
    // https://www.volcengine.com/docs/82379/1541523
    ("volcengine", ONE),
    ("xai", Quirks { refused: &["size", "quality", "style"], ..NONE }),
    // https://docs.z.ai/api-reference/image/generate-image
    ("zai", ONE),
    // https://docs.bigmodel.cn/api-reference
    ("zhipu", ONE),
];

/// Without `n`.
const ONE: Quirks = Quirks { one_at_a_time: true, ..NONE };

const SILICONFLOW: Quirks = Quirks {
    refused: &["response_format", "quality", "style"],
    names: &[("size", "image_size"), ("n", "batch_size")],
    ..NONE
};

/// Providers of the catalogue that change pictures at `/images/edits`, and how they take them. Others take them, if at
/// all, as members of their own beside the prompt. Servers of one's own may have it.
const EDITS: [(&str, Edits); 5] = [
    // https://learn.microsoft.com/azure/ai-foundry/openai/how-to/dall-e
    ("azure", Edits::OpenAi),
    // https://deepinfra.com/Qwen/Qwen-Image-Edit/api
    ("deepinfra", Edits::OpenAi),
    // https://docs.nano-gpt.com/api-reference/endpoint/image-edits
    ("nanogpt", Edits::OpenAi),
    // https://platform.openai.com/docs/api-reference/images/createEdit
    ("openai", Edits::OpenAi),
    // https://docs.x.ai/docs/guides/image-generations
    ("xai", Edits::Json),
];

const NONE: Quirks = Quirks {
    refused: &[],
    sides: false,
    one_at_a_time: false,
    base64_word: None,
    names: &[],
    streams: false,
    edits: Edits::None,
};

/// Hosts whose pictures moved, and where they are to be had if not there.
const SECOND_HOSTS: [(&str, &str); 1] = [("api.tokenfactory.nebius.com", "api.studio.nebius.com")];

/// Models that do not exist any more, and those that came after them.
const SUCCESSORS: [(&str, &str, &str); 4] = [
    ("azure", "dall-e-3", "gpt-image-1.5"),
    ("openai", "dall-e-2", "gpt-image-1.5"),
    ("openai", "dall-e-3", "gpt-image-1.5"),
    ("openai", "gpt-image-1", "gpt-image-1.5"),
];

/// Providers that write transcripts in some formats only.
const FORMATS: [(&str, &[Format]); 3] = [
    ("groq", &[Format::Json, Format::Text, Format::VerboseJson]),
    ("mistral", &[Format::Json]),
    ("together", &[Format::Json, Format::VerboseJson]),
];

const EVERY_FORMAT: &[Format] =
    &[Format::Json, Format::Text, Format::VerboseJson, Format::DiarizedJson, Format::Srt, Format::Vtt];

/// How a model of a provider wants to be asked for pictures.
pub fn image_quirks(spec: &ProviderSpec, model: &str) -> Quirks {
    let provider = IMAGE_PROVIDERS.iter().find(|(id, _)| *id == spec.id.as_str());
    let known = || IMAGE_MODELS.iter().find(|(name, _)| model.contains(name));
    // Hosts call models as they like.
    let by_model = provider.is_none().then(known).flatten();
    let quirks = provider.or(by_model).map_or(NONE, |(_, quirks)| *quirks);
    let known = EDITS.iter().find(|(id, _)| *id == spec.id.as_str()).map(|(_, edits)| *edits);
    let edits = match (known, spec.category) {
        (Some(edits), _) => edits,
        (None, Category::Custom | Category::Local) => Edits::OpenAi,
        (None, _) => Edits::None,
    };
    Quirks { edits, ..quirks }
}

/// Where else pictures are to be had when an address does not have them any more.
pub fn second_image_uri(uri: &Uri) -> Option<Uri> {
    let (_, second) = SECOND_HOSTS.iter().find(|(host, _)| uri.host() == Some(host))?;
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(Authority::from_static(second));
    Uri::from_parts(parts).ok()
}

/// Where a model that writes down what is said is to be had, if not where its provider has the others
/// (<https://docs.fireworks.ai/guides/querying-asr-models>).
pub fn transcription_uri(uri: Uri, model: &str) -> Uri {
    const HOSTS: [(&str, &str, &str); 1] =
        [("audio-prod.api.fireworks.ai", "turbo", "audio-turbo.api.fireworks.ai")];
    let found = HOSTS.iter().find(|(host, part, _)| uri.host() == Some(host) && model.contains(part));
    let Some((.., other)) = found else { return uri };
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(Authority::from_static(other));
    Uri::from_parts(parts).unwrap_or(uri)
}

/// The model to ask for when one does not exist any more.
pub fn successor(spec: &ProviderSpec, model: &str) -> Option<&'static str> {
    let mut known = SUCCESSORS.iter();
    known.find(|(id, retired, _)| *id == spec.id.as_str() && *retired == model).map(|(.., next)| *next)
}

/// The formats in which a provider writes transcripts.
pub fn transcript_formats(spec: &ProviderSpec) -> &'static [Format] {
    FORMATS.iter().find(|(id, _)| *id == spec.id.as_str()).map_or(EVERY_FORMAT, |(_, formats)| formats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;

    fn spec(id: &str) -> &'static ProviderSpec {
        catalog().provider(id).unwrap()
    }

    #[test]
    fn every_provider_of_the_tables_is_in_the_catalogue() {
        let ids = IMAGE_PROVIDERS.iter().map(|(id, _)| *id);
        let ids = ids.chain(EDITS.iter().map(|(id, _)| *id));
        let ids = ids.chain(SUCCESSORS.iter().map(|(id, ..)| *id)).chain(FORMATS.iter().map(|(id, _)| *id));
        for id in ids {
            assert!(catalog().provider(id).is_some(), "{id}");
        }
        for (host, _) in SECOND_HOSTS {
            assert!(catalog().providers().iter().any(|spec| spec.base_url.contains(host)), "{host}");
        }
    }

    #[test]
    fn quirks_of_models_and_providers() {
        assert!(image_quirks(spec("openai"), "dall-e-3").one_at_a_time);
        assert!(image_quirks(spec("openai"), "gpt-image-1.5").refused.contains(&"response_format"));
        assert!(image_quirks(spec("xai"), "grok-imagine-image-2.0").refused.contains(&"size"));
        assert_eq!(
            image_quirks(spec("together"), "black-forest-labs/FLUX.1-schnell").base64_word,
            Some("base64")
        );
        assert_eq!(image_quirks(spec("fireworks"), "flux"), Quirks::default());
        assert!(
            image_quirks(spec("siliconflow-cn"), "Kolors/Kolors").names.contains(&("size", "image_size"))
        );
        assert!(image_quirks(spec("zhipu"), "cogview-4").one_at_a_time);
        assert!(image_quirks(spec("azure"), "gpt-image-1").streams);
        for (provider, edits) in [
            ("openai", Edits::OpenAi),
            ("xai", Edits::Json),
            ("together", Edits::None),
            ("localai", Edits::OpenAi),
        ] {
            assert_eq!(image_quirks(spec(provider), "m").edits, edits, "{provider}");
        }
        assert_eq!(successor(spec("openai"), "dall-e-3"), Some("gpt-image-1.5"));
        assert_eq!(successor(spec("openai"), "gpt-image-1.5"), None);
        assert!(!transcript_formats(spec("groq")).contains(&Format::Srt));
        assert!(transcript_formats(spec("openai")).contains(&Format::Srt));
    }

    #[test]
    fn pictures_that_moved() {
        let uri = |text: &'static str| Uri::from_static(text);
        let moved = second_image_uri(&uri("https://api.tokenfactory.nebius.com/v1/images/generations"));
        assert_eq!(moved, Some(uri("https://api.studio.nebius.com/v1/images/generations")));
        assert_eq!(second_image_uri(&uri("http://127.0.0.1:1/v1/images/generations")), None);
    }

    #[test]
    fn models_with_a_host_of_their_own() {
        let prod = Uri::from_static("https://audio-prod.api.fireworks.ai/v1/audio/transcriptions");
        let turbo = Uri::from_static("https://audio-turbo.api.fireworks.ai/v1/audio/transcriptions");
        assert_eq!(transcription_uri(prod.clone(), "whisper-v3-turbo"), turbo);
        assert_eq!(transcription_uri(prod.clone(), "whisper-v3"), prod);
        let own = Uri::from_static("http://127.0.0.1:1/v1/audio/transcriptions");
        assert_eq!(transcription_uri(own.clone(), "whisper-v3-turbo"), own);
    }
}
