//! Names of providers in LiteLLM's list of prices that are other ones here.

/// Names that are other ones here.
const PROVIDERS: [(&str, &str); 18] = [
    ("azure_ai", "azure-ai"),
    ("bedrock_converse", "bedrock"),
    ("cohere_chat", "cohere"),
    ("dashscope", "alibaba"),
    ("deepinfra", "deepinfra"),
    ("fireworks_ai", "fireworks"),
    ("friendliai", "friendliai"),
    ("github", "github-models"),
    ("jina_ai", "jina"),
    ("meta_llama", "meta-llama"),
    ("nvidia_nim", "nvidia"),
    ("text-completion-codestral", "codestral"),
    ("text-completion-openai", "openai"),
    ("together_ai", "together"),
    ("vercel_ai_gateway", "vercel-ai-gateway"),
    ("vertex_ai", "vertex"),
    ("xai", "xai"),
    ("fal_ai", "fal"),
];

/// The name that a provider of the list has here; the same where nobody says otherwise.
pub fn own_name(named: &str) -> &str {
    let own = PROVIDERS.iter().find(|(other, _)| *other == named).map(|(_, own)| *own);
    own.or(named.starts_with("vertex_ai").then_some("vertex")).unwrap_or(named)
}
