//! Cheap calls that show whether a key works, for accounts that are not there for conversations: nobody is billed for more
//! than a word.

use http::{Method, Uri};
use serde_json::Value;

use crate::capability::{Capability, mode_by_name};
use crate::provider::EndpointError;
use crate::service::{Service, ServiceDialect};
use crate::spec::ProviderSpec;

/// What vendors have beside what they sell, and what it takes the place of in the address.
const ASIDE: [(&str, &str, &str); 6] = [
    // https://www.assemblyai.com/docs/api-reference/transcripts/list
    ("assemblyai", "/transcript", "/transcript?limit=1"),
    // https://docs.bfl.ai/api-reference/utility/get-the-users-credits
    ("black-forest-labs", "/m", "/credits"),
    // https://developers.deepgram.com/reference/manage/projects/list
    ("deepgram", "/listen", "/projects"),
    // https://www.recraft.ai/docs/api-reference/endpoints
    ("recraft", "/images/generations", "/users/me"),
    // https://replicate.com/docs/reference/http#account.get
    ("replicate", "/models/m/predictions", "/account"),
    // https://platform.stability.ai/docs/api-reference#tag/User
    ("stability", "/v2beta/stable-image/generate/m", "/v1/user/balance"),
];

/// What stands for a model in addresses that have one.
const ANY_MODEL: &str = "m";

/// A call that shows whether a key works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sounding {
    /// How.
    pub method: Method,
    /// Where.
    pub uri: Uri,
    /// What is sent.
    pub body: String,
}

/// The cheap call of an account that has these services. `model` is asked if one is named and can be; `Err` says why not,
/// or why there is no call at all.
pub fn sounding<'a>(
    spec: &ProviderSpec,
    services: &'a [Service],
    model: Option<&str>,
) -> Result<(&'a Service, Sounding), String> {
    let told = |error: EndpointError| error.to_string();
    let embeds = services.iter().find(|service| {
        service.capability == Capability::Embeddings && service.dialect == ServiceDialect::OpenAi
    });
    if let Some(service) = embeds {
        let known = spec.models.iter().find(|model| mode_by_name(model) == Capability::Embeddings.mode());
        let model = model.or(known.map(String::as_str));
        let model = model.ok_or_else(|| "no embedding model is known; send `model`".to_owned())?;
        let uri = service.uri(model).map_err(told)?;
        let body = format!(r#"{{"model":{},"input":["ping"]}}"#, Value::from(model));
        return Ok((service, Sounding { method: Method::POST, uri, body }));
    }
    if let Some(model) = model {
        return Err(format!(
            "`{model}` cannot be asked for a word, only for what costs more; leave `model` out to test the key"
        ));
    }
    let aside = ASIDE.iter().find(|(id, ..)| *id == spec.id.as_str());
    let found = aside.and_then(|(_, from, to)| Some((services.first()?, from, to)));
    let Some((service, from, to)) = found else {
        return Err("the provider has nothing that shows whether a key works and costs nothing".to_owned());
    };
    let uri = service.uri_ending(ANY_MODEL, from, to).map_err(told)?;
    Ok((service, Sounding { method: Method::GET, uri, body: String::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;
    use crate::provider::ConnectionInput;
    use crate::registry::provider_for;

    #[test]
    fn accounts_without_conversations() {
        for (provider, base_url, model, expected) in [
            ("deepgram", None, None, Ok("GET https://api.deepgram.com/v1/projects ")),
            ("deepgram", Some("http://h:1/v1"), None, Ok("GET http://h:1/v1/projects ")),
            ("assemblyai", None, None, Ok("GET https://api.assemblyai.com/v2/transcript?limit=1 ")),
            ("recraft", None, None, Ok("GET https://external.api.recraft.ai/v1/users/me ")),
            ("replicate", None, None, Ok("GET https://api.replicate.com/v1/account ")),
            ("stability", None, None, Ok("GET https://api.stability.ai/v1/user/balance ")),
            ("black-forest-labs", None, None, Ok("GET https://api.bfl.ai/v1/credits ")),
            ("fal", None, None, Err("nothing that shows whether a key works")),
            (
                "voyage",
                None,
                None,
                Ok(
                    r#"POST https://api.voyageai.com/v1/embeddings {"model":"voyage-4-large","input":["ping"]}"#,
                ),
            ),
            (
                "jina",
                None,
                Some("jina-embeddings-v3"),
                Ok(
                    r#"POST https://api.jina.ai/v1/embeddings {"model":"jina-embeddings-v3","input":["ping"]}"#,
                ),
            ),
            ("deepgram", None, Some("nova-3"), Err("leave `model` out")),
        ] {
            let spec = catalog().provider(provider).unwrap().clone();
            let input = ConnectionInput { api_key: Some("k"), base_url, ..ConnectionInput::default() };
            let services = provider_for(spec.clone()).services(&input).unwrap();
            let found = sounding(&spec, &services, model);
            match (found, expected) {
                (Ok((_, Sounding { method, uri, body })), Ok(expected)) => {
                    assert_eq!(format!("{method} {uri} {body}"), expected);
                }
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (found, expected) => panic!("{provider}: {found:?} {expected:?}"),
            }
        }
    }

    #[test]
    fn every_usable_account_without_conversations_has_one() {
        for spec in catalog().providers() {
            let input = ConnectionInput { api_key: Some("k"), ..ConnectionInput::default() };
            let provider = provider_for(spec.clone());
            let Ok(services) = provider.services(&input) else { continue };
            // fal.ai has nothing of the kind where its models are.
            let is_exempt = spec.id.as_str() == "fal";
            if spec.capabilities.iter().any(|it| it == "chat") || services.is_empty() || is_exempt {
                continue;
            }
            assert!(sounding(spec, &services, None).is_ok(), "{}", spec.id);
        }
    }
}
