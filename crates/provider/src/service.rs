//! Where and how a connection is called for what is not chat: one [`Service`] for each of the provider's abilities.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use omniroute_dialect::embeddings::Form;
use omniroute_dialect::images::Painter;

use crate::capability::Capability;
use crate::dialects::{GEMINI, OLLAMA, OPENAI_CHAT, OPENAI_RESPONSES};
use crate::endpoint;
use crate::provider::EndpointError;

/// The wire formats of such operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceDialect {
    /// OpenAI's, whatever the operation.
    OpenAi,
    /// Google's.
    Gemini,
    /// Ollama's own.
    Ollama,
    /// Deepgram's.
    Deepgram,
    /// AssemblyAI's.
    AssemblyAi,
    /// Those of the makers of models at Bedrock.
    Bedrock,
    /// That of a vendor of pictures.
    Painter(Painter),
}

impl ServiceDialect {
    /// Whether it is known how a model is asked for vectors.
    pub fn embeds_with(self, model: &str) -> bool {
        self != Self::Bedrock || Form::at_bedrock(model).is_some()
    }

    /// In which form it is asked for a model's vectors by a client that asked in this one.
    pub fn embeddings(self, asked: Form, model: &str) -> Form {
        asked.upstream(match self {
            Self::Gemini => Form::GeminiBatch,
            Self::Ollama => Form::Ollama,
            Self::Bedrock => Form::at_bedrock(model).unwrap_or(Form::BedrockTitan),
            Self::OpenAi | Self::Deepgram | Self::AssemblyAi | Self::Painter(_) => Form::OpenAi,
        })
    }

    /// The id of the dialect for conversations that it belongs to, for logs; `None` where there is none.
    pub fn chat_dialect(self) -> Option<omniroute_dialect::DialectId> {
        let name = match self {
            Self::OpenAi => OPENAI_CHAT,
            Self::Gemini => GEMINI,
            Self::Ollama => OLLAMA,
            Self::Deepgram | Self::AssemblyAi | Self::Bedrock | Self::Painter(_) => return None,
        };
        omniroute_dialect::registry::by_name(name).map(|dialect| dialect.id())
    }
}

/// An ability of a connection, ready to use.
#[derive(Clone)]
pub struct Service {
    /// What it is.
    pub capability: Capability,
    /// How it is asked for.
    pub dialect: ServiceDialect,
    pub(crate) address: Address,
    /// Every header of a request, credential included (marked sensitive); shared by the services of a connection.
    pub headers: Arc<HeaderMap>,
}

#[derive(Debug, Clone)]
pub(crate) enum Address {
    Whole(Uri),
    /// With `{model}` in it.
    Template(String),
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("capability", &self.capability)
            .field("dialect", &self.dialect)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// The URL for a model.
    pub fn uri(&self, model: &str) -> Result<Uri, EndpointError> {
        match &self.address {
            Address::Whole(uri) => Ok(uri.clone()),
            Address::Template(template) => {
                // Slashes that stay must not lead out of the path.
                let leads_out = |part: &str| matches!(part, "" | "." | "..");
                if template.contains("{+model}") && model.split('/').any(leads_out) {
                    let reason = "the model's name is no path".to_owned();
                    return Err(EndpointError::BadUrl { url: template.clone(), reason });
                }
                endpoint::uri(&endpoint::expand(template, model))
            }
        }
    }

    /// The URL of what the vendor has beside it: the end of the path replaced. A path that ends otherwise is kept.
    pub fn uri_ending(&self, model: &str, from: &str, to: &str) -> Result<Uri, EndpointError> {
        let uri = self.uri(model)?;
        let Some(stem) = uri.path().strip_suffix(from) else { return Ok(uri) };
        let question = if uri.query().is_some() { "?" } else { "" };
        let place = format!("{stem}{to}{question}{}", uri.query().unwrap_or_default());
        let bad = |reason: String| EndpointError::BadUrl { url: place.clone(), reason };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query =
            Some(place.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?);
        Uri::from_parts(parts).map_err(|error| bad(error.to_string()))
    }
}

/// The path below the base URL and the wire format of an ability, by the provider's dialect and the path that its data
/// names. `None` where the gateway does not speak the format.
pub(crate) fn place<'a>(
    capability: Capability,
    dialect: &str,
    named: Option<&'a str>,
) -> Option<(&'a str, ServiceDialect)> {
    let usual = capability.openai_path();
    let ends_with = |path: &str, end: &str| path.split('?').next().is_some_and(|path| path.ends_with(end));
    match (dialect, capability) {
        (GEMINI, Capability::Embeddings) => {
            Some((named.unwrap_or("/models/{model}:batchEmbedContents"), ServiceDialect::Gemini))
        }
        (GEMINI, Capability::Images) => {
            Some((named.unwrap_or("/models/{model}:generateContent"), ServiceDialect::Gemini))
        }
        (OLLAMA, Capability::Embeddings) => match named {
            Some(path) if ends_with(path, usual) => Some((path, ServiceDialect::OpenAi)),
            _ => Some((named.unwrap_or("/api/embed"), ServiceDialect::Ollama)),
        },
        ("deepgram", Capability::Transcriptions) => {
            Some((named.unwrap_or("/listen"), ServiceDialect::Deepgram))
        }
        ("assemblyai", Capability::Transcriptions) => {
            Some((named.unwrap_or("/transcript"), ServiceDialect::AssemblyAi))
        }
        ("bedrock-converse", Capability::Embeddings) => {
            Some((named.unwrap_or("/model/{model}/invoke"), ServiceDialect::Bedrock))
        }
        ("bfl", Capability::Images) => {
            Some((named.unwrap_or("/{model}"), ServiceDialect::Painter(Painter::BlackForest)))
        }
        ("fal", Capability::Images) => {
            Some((named.unwrap_or("/{model}"), ServiceDialect::Painter(Painter::Fal)))
        }
        ("replicate", Capability::Images) => Some((
            named.unwrap_or("/models/{model}/predictions"),
            ServiceDialect::Painter(Painter::Replicate),
        )),
        ("stability", Capability::Images) => Some((
            named.unwrap_or("/stable-image/generate/{model}"),
            ServiceDialect::Painter(Painter::Stability),
        )),
        (OPENAI_CHAT | OPENAI_RESPONSES | "openai-embeddings" | "openai-images", _) => match named {
            // Another path is another format.
            Some(path) if ends_with(path, usual) => Some((path, ServiceDialect::OpenAi)),
            Some(path) if capability == Capability::Images && ends_with(path, "/images") => {
                Some((path, ServiceDialect::OpenAi))
            }
            Some(path) if capability == Capability::Images && ends_with(path, "/image/generation") => {
                Some((path, ServiceDialect::Painter(Painter::Hyperbolic)))
            }
            Some(_) => None,
            None => Some((usual, ServiceDialect::OpenAi)),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;
    use crate::provider::ConnectionInput;
    use crate::registry::{NodeKind, NodeSpec, provider_for, spec_from_node};

    fn service(provider: &str, base_url: Option<&str>, capability: Capability) -> Option<Service> {
        let spec = catalog().provider(provider).unwrap().clone();
        let input = ConnectionInput { api_key: Some("k"), base_url, ..ConnectionInput::default() };
        let services = provider_for(spec).services(&input).unwrap();
        services.into_iter().find(|service| service.capability == capability)
    }

    #[test]
    fn addresses_of_the_catalogue() {
        use Capability::{Embeddings, Images, Transcriptions};
        for (provider, base_url, capability, dialect, uri) in [
            ("openai", None, Embeddings, ServiceDialect::OpenAi, "https://api.openai.com/v1/embeddings"),
            (
                "openai",
                Some("http://h:1/v1"),
                Images,
                ServiceDialect::OpenAi,
                "http://h:1/v1/images/generations",
            ),
            ("voyage", None, Embeddings, ServiceDialect::OpenAi, "https://api.voyageai.com/v1/embeddings"),
            (
                "gemini",
                None,
                Embeddings,
                ServiceDialect::Gemini,
                "https://generativelanguage.googleapis.com/v1beta/models/a%2Fm:batchEmbedContents",
            ),
            ("ollama", Some("http://h:1/v1"), Embeddings, ServiceDialect::Ollama, "http://h:1/api/embed"),
            (
                "deepgram",
                None,
                Transcriptions,
                ServiceDialect::Deepgram,
                "https://api.deepgram.com/v1/listen",
            ),
            (
                "assemblyai",
                None,
                Transcriptions,
                ServiceDialect::AssemblyAi,
                "https://api.assemblyai.com/v2/transcript",
            ),
        ] {
            let service = service(provider, base_url, capability).expect(provider);
            assert_eq!((service.dialect, service.uri("a/m").unwrap().to_string().as_str()), (dialect, uri));
        }
        assert!(service("anthropic", None, Embeddings).is_none());
        assert!(service("elevenlabs", None, Transcriptions).is_none(), "a format that is not spoken");
    }

    #[test]
    fn vendors_with_formats_of_their_own_have_addresses_of_their_own() {
        use Capability::{Embeddings, Images, Transcriptions};
        for (provider, base_url, capability, model, uri) in [
            (
                "bedrock",
                None,
                Embeddings,
                "amazon.titan-embed-text-v2:0",
                "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2:0/invoke",
            ),
            ("fal", None, Images, "fal-ai/flux/schnell", "https://fal.run/fal-ai/flux/schnell"),
            ("black-forest-labs", None, Images, "flux-pro-1.1", "https://api.bfl.ai/v1/flux-pro-1.1"),
            (
                "replicate",
                None,
                Images,
                "black-forest-labs/flux-1.1-pro",
                "https://api.replicate.com/v1/models/black-forest-labs/flux-1.1-pro/predictions",
            ),
            ("stability", None, Images, "core", "https://api.stability.ai/v2beta/stable-image/generate/core"),
            ("hyperbolic", None, Images, "m", "https://api.hyperbolic.xyz/v1/image/generation"),
            ("openrouter", None, Images, "m", "https://openrouter.ai/api/v1/images"),
            (
                "azure-ai",
                Some("https://r.services.ai.azure.com/models"),
                Embeddings,
                "m",
                "https://r.services.ai.azure.com/models/embeddings?api-version=2024-05-01-preview",
            ),
            (
                "fireworks",
                None,
                Transcriptions,
                "whisper-v3",
                "https://audio-prod.api.fireworks.ai/v1/audio/transcriptions",
            ),
            // Whoever puts something between has all of it there.
            (
                "fireworks",
                Some("http://h:1/v1"),
                Transcriptions,
                "whisper-v3",
                "http://h:1/v1/audio/transcriptions",
            ),
        ] {
            let service = service(provider, base_url, capability).expect(provider);
            assert_eq!(service.uri(model).unwrap().to_string(), uri);
        }
        let fal = service("fal", None, Images).unwrap();
        for model in ["../x", "a//b", "a/./b", "a/.."] {
            assert!(fal.uri(model).is_err(), "{model}");
        }
    }

    #[test]
    fn what_the_catalogue_declares_is_served() {
        for spec in catalog().providers() {
            let usable = !matches!(
                spec.auth.kind,
                crate::spec::AuthKind::Gcp
                    | crate::spec::AuthKind::IbmIam
                    | crate::spec::AuthKind::ClientCredentials
            );
            for capability in Capability::ALL {
                let name = capability.as_str();
                if !spec.capabilities.iter().any(|offered| offered == name) {
                    continue;
                }
                let place = place(capability, &spec.dialect, spec.paths.get(name).map(String::as_str));
                assert!(usable && place.is_some(), "{} declares {name}, which nothing here serves", spec.id);
            }
        }
    }

    #[test]
    fn credentials_are_sent_as_the_provider_wants_them() {
        for (provider, capability, header, value) in [
            ("openai", Capability::Embeddings, "authorization", "Bearer k"),
            ("gemini", Capability::Embeddings, "x-goog-api-key", "k"),
            ("deepgram", Capability::Transcriptions, "authorization", "Token k"),
            ("assemblyai", Capability::Transcriptions, "authorization", "k"),
            ("bedrock", Capability::Embeddings, "authorization", "Bearer k"),
            ("fal", Capability::Images, "authorization", "Key k"),
            ("black-forest-labs", Capability::Images, "x-key", "k"),
        ] {
            let service = service(provider, None, capability).unwrap();
            let sent = service.headers.get(header).unwrap();
            assert_eq!((sent.to_str().unwrap(), sent.is_sensitive()), (value, true), "{provider}");
        }
    }

    #[test]
    fn nodes_have_what_their_dialect_has() {
        for (kind, uri) in [
            (NodeKind::OpenAiChat, Some("https://n.example/v1/embeddings")),
            (NodeKind::Gemini, Some("https://n.example/v1/models/m:batchEmbedContents")),
            (NodeKind::Ollama, Some("https://n.example/v1/api/embed")),
            (NodeKind::Anthropic, None),
        ] {
            let spec = spec_from_node(&NodeSpec {
                id: "n".into(),
                kind,
                name: "n".to_owned(),
                prefix: "n".to_owned(),
                base_url: "https://n.example/v1".to_owned(),
                chat_path: Some("/complete".to_owned()),
                models_path: None,
                headers: Default::default(),
            });
            let services = provider_for(Arc::new(spec)).services(&ConnectionInput::default()).unwrap();
            let embeds = services.iter().find(|service| service.capability == Capability::Embeddings);
            assert_eq!(embeds.map(|service| service.uri("m").unwrap().to_string()).as_deref(), uri);
        }
    }

    #[test]
    fn neighbours_are_found_by_the_end_of_the_path() {
        let gemini = service("gemini", None, Capability::Embeddings).unwrap();
        let one = gemini.uri_ending("m", ":batchEmbedContents", ":embedContent").unwrap();
        assert!(one.path().ends_with("/models/m:embedContent"), "{one}");
        let kept = gemini.uri_ending("m", "/nothing", "/x").unwrap();
        assert!(kept.path().ends_with(":batchEmbedContents"), "{kept}");
    }
}
