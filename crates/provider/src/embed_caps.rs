//! What a provider and its model make of a request for embeddings. What is not known to be otherwise is as at OpenAI.

use omniroute_dialect::embeddings::{EmbedCaps, Form, MAX_ITEMS};

use crate::{
    ProviderSpec,
    dialects::{GEMINI, OLLAMA},
    spec::Category,
};

/// Whose models take as many texts as their makers say.
const BEDROCK: &str = "bedrock";

/// Where less than OpenAI's number of texts fits into one call, as the vendors' references have it.
const MAX_ITEMS_OF: [(&str, usize); 13] = [
    // https://help.aliyun.com/en/model-studio/embedding-interfaces-compatible-with-openai
    ("alibaba", 10),
    ("alibaba-cn", 10),
    // https://developers.cloudflare.com/workers-ai/models/bge-m3/
    ("cloudflare", 100),
    // https://docs.cohere.com/reference/embed
    ("cohere", 96),
    // https://ai.google.dev/gemini-api/docs/embeddings
    ("gemini", 100),
    // https://www.mixedbread.com/api-reference/endpoints/embeddings
    ("mixedbread", 256),
    // https://cloud.baidu.com/doc/qianfan-api/s/Fm7u3ropn
    ("qianfan", 16),
    // https://docs.siliconflow.cn/api-reference/embeddings/create-embeddings
    ("siliconflow", 32),
    ("siliconflow-cn", 32),
    // https://console.upstage.ai/api/embeddings
    ("upstage", 100),
    // https://docs.voyageai.com/reference/embeddings-api
    ("voyage", 1_000),
    // https://docs.bigmodel.cn/api-reference
    ("zai", 64),
    ("zhipu", 64),
];

/// Who writes vectors in base64, beside servers of one's own.
const BASE64: [&str; 11] = [
    "azure",
    "cohere",
    "deepinfra",
    "llamacpp",
    "mistral",
    "nvidia",
    "openai",
    "openrouter",
    "sim",
    "vllm",
    "voyage",
];

/// Who knows OpenAI's tokens.
const TOKEN_LISTS: [&str; 5] = ["azure", "llamacpp", "openai", "sim", "vllm"];

/// Who has `input_type`, its words for questions and for what is searched, and whether it wants it in every request.
const INPUT_TYPES: [(&str, [&str; 2], bool); 3] = [
    ("cohere", ["search_query", "search_document"], false),
    ("nvidia", ["query", "passage"], true),
    ("voyage", ["query", "document"], false),
];

/// Who calls `dimensions` otherwise.
const DIMENSIONS: [(&str, &str); 2] = [("mistral", "output_dimension"), ("voyage", "output_dimension")];

/// Names of models, or parts of them, whose vectors have one length only.
const FIXED: [&str; 10] = [
    "text-embedding-ada-002",
    "mistral-embed",
    "nv-embedqa-e5",
    "bge-",
    "m2-bert",
    "all-minilm",
    "embed-english-",
    "embed-multilingual-",
    "titan-embed-text-v1",
    "titan-embed-g1",
];

/// What a provider makes of a request for `model`, whose vectors are known to have `dimensions` at most.
pub fn embed_caps(spec: &ProviderSpec, model: &str, dimensions: Option<u64>) -> EmbedCaps {
    let id = spec.id.as_str();
    let is_own = spec.category == Category::Custom || spec.category == Category::Local;
    let usual = match Form::at_bedrock(model) {
        _ if spec.dialect == GEMINI => 100,
        // https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
        Some(Form::BedrockCohere) if id == BEDROCK => 96,
        // https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
        _ if id == BEDROCK => 1,
        _ => MAX_ITEMS,
    };
    let of = |table: &[(&str, usize)]| table.iter().find(|(name, _)| *name == id).map(|(_, most)| *most);
    let types = INPUT_TYPES.iter().find(|(name, ..)| *name == id);
    let speaks_openai = spec.dialect != GEMINI && spec.dialect != OLLAMA && id != BEDROCK;
    let name = model.to_ascii_lowercase();
    EmbedCaps {
        max_items: of(&MAX_ITEMS_OF).unwrap_or(usual),
        base64: speaks_openai && (is_own || BASE64.contains(&id)),
        // Here lists are what one gets by saying nothing.
        float_word: id != "voyage",
        token_lists: speaks_openai && (is_own || TOKEN_LISTS.contains(&id)),
        input_types: types.map(|(_, words, _)| *words),
        needs_input_type: types.is_some_and(|(.., is_needed)| *is_needed),
        dimensions_name: DIMENSIONS
            .iter()
            .find(|(name, _)| *name == id)
            .map_or("dimensions", |(_, word)| word),
        fixed_dimensions: FIXED.iter().any(|part| name.contains(part)),
        max_dimensions: dimensions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;

    #[test]
    fn providers_of_the_tables_are_in_the_catalogue() {
        let names = MAX_ITEMS_OF
            .iter()
            .map(|(name, _)| *name)
            .chain(BASE64)
            .chain(TOKEN_LISTS)
            .chain(INPUT_TYPES.iter().map(|(name, ..)| *name))
            .chain(DIMENSIONS.iter().map(|(name, _)| *name));
        for name in names {
            let spec = catalog().provider(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(spec.id.as_str(), name);
            assert!(spec.capabilities.iter().any(|it| it == "embeddings"), "{name} has no embeddings");
        }
    }

    #[test]
    fn what_is_known_of_some() {
        let caps =
            |provider: &str, model: &str| embed_caps(catalog().provider(provider).unwrap(), model, None);
        assert_eq!(caps("openai", "text-embedding-3-small"), EmbedCaps::default());
        assert!(caps("openai", "text-embedding-ada-002").fixed_dimensions);
        assert!(caps("nvidia", "nvidia/nv-embedqa-e5-v5").needs_input_type);
        assert_eq!(caps("gemini", "gemini-embedding-001").max_items, 100);
        assert!(!caps("together", "BAAI/bge-base-en-v1.5").base64);
        assert_eq!(
            (caps("qianfan", "embedding-v1").max_items, caps("upstage", "solar-embedding-2").max_items),
            (16, 100)
        );
        assert!(!caps("qianfan", "embedding-v1").base64);
        assert!(!caps("voyage", "voyage-4").float_word);
        assert_eq!(
            (
                caps("bedrock", "amazon.titan-embed-text-v2:0").max_items,
                caps("bedrock", "us.cohere.embed-v4:0").max_items
            ),
            (1, 96)
        );
        assert!(!caps("bedrock", "cohere.embed-v4:0").base64);
    }
}
