//! What makes an entry of the catalogue, or of an operator's file, sound.

use crate::{
    ProviderSpec, dialects,
    endpoint::{is_variable, variables},
    model::ModelSpec,
    spec::{Auth, AuthKind},
};

/// What a provider can offer.
pub const CAPABILITIES: &[&str] = &[
    "batches",
    "chat",
    "embeddings",
    "fim",
    "images",
    "list_models",
    "messages",
    "moderations",
    "rerank",
    "responses",
    "speech",
    "transcriptions",
    "video",
];

/// What a model can do.
pub const MODEL_CAPABILITIES: &[&str] = &[
    "audio_in",
    "audio_out",
    "computer_use",
    "json_schema",
    "parallel_tools",
    "pdf",
    "prompt_caching",
    "reasoning",
    "tool_choice",
    "tools",
    "video_in",
    "vision",
    "web_search",
];

/// What a model is for.
pub const MODEL_MODES: &[&str] = &[
    "audio_speech",
    "audio_transcription",
    "chat",
    "embedding",
    "image_generation",
    "moderation",
    "rerank",
    "responses",
];

/// Units of prices that are not per token.
pub const UNITS: &[&str] =
    &["per_character_in", "per_image", "per_query", "per_request", "per_second_in", "per_second_out"];

/// Prefixes that mean something else in a model's name; no provider and no node may have them.
pub const RESERVED_PREFIXES: &[&str] = &["auto", "combo", crate::registry::SIM];

/// Everything that is wrong with a provider's entry.
pub fn problems_of(spec: &ProviderSpec) -> Vec<String> {
    let mut problems = Vec::new();
    let mut complain = |text: String| problems.push(text);

    for name in [spec.id.as_str(), &spec.alias].into_iter().chain(spec.aliases.iter().map(String::as_str)) {
        if !is_prefix(name) {
            complain(format!(
                "`{name}` is not a valid id: lower-case letters, digits, `.`, `_`, `-`, at most 64"
            ));
        }
    }
    if crate::registry::is_node_id(spec.id.as_str()) {
        complain(format!("`{}` begins as ids of `/api/provider-nodes` do", spec.id));
    }
    for name in RESERVED_PREFIXES {
        if spec.id.as_str() == *name || spec.alias == *name || spec.aliases.iter().any(|alias| alias == name)
        {
            complain(format!("`{name}` is reserved"));
        }
    }
    if spec.name.trim().is_empty() {
        complain("`name` is empty".to_owned());
    }
    for dialect in std::iter::once(&spec.dialect).chain(spec.alt_dialects.iter().map(|alt| &alt.dialect)) {
        if !dialects::is_declared(dialect) {
            complain(format!(
                "dialect `{dialect}` is unknown; known are {}",
                dialects::declared().join(", ")
            ));
        }
    }
    let alts = spec.alt_dialects.iter().map(|alt| ("alt_dialects", &alt.base_url));
    for (place, url) in std::iter::once(("base_url", &spec.base_url)).chain(alts) {
        if let Err(problem) = check_url(spec, url) {
            complain(format!("{place}: {problem}"));
        }
        if url.ends_with('/') {
            complain(format!("{place}: `{url}` ends with a slash"));
        }
    }
    for (operation, path) in &spec.paths {
        let joined = if path.starts_with("http") { path.clone() } else { format!("{}{path}", spec.base_url) };
        if !path.starts_with(['/']) && !path.starts_with("http") {
            complain(format!("paths.{operation}: `{path}` begins neither with `/` nor with `http`"));
        } else if let Err(problem) = check_url(spec, &joined) {
            complain(format!("paths.{operation}: {problem}"));
        }
    }
    for name in spec.vars.keys() {
        if !is_variable(name) {
            complain(format!("vars: `{name}` is not a valid name"));
        }
    }
    for capability in &spec.capabilities {
        if !CAPABILITIES.contains(&capability.as_str()) {
            complain(format!("capability `{capability}` is unknown"));
        }
    }
    for name in spec.headers.keys() {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            complain(format!("headers: `{name}` is not a valid name"));
        }
    }
    if let Err(problem) = check_auth(&spec.auth) {
        complain(format!("auth: {problem}"));
    }
    problems
}

/// Everything that is wrong with a model's row in the file of `provider`.
pub fn problems_of_row(provider: &str, row: &ModelSpec) -> Vec<String> {
    let mut problems = Vec::new();
    let place = format!("models/{provider}.json, `{}`", row.model);
    if row.provider.as_str() != provider {
        problems.push(format!("{place}: provider is `{}`", row.provider));
    }
    if row.model.trim().is_empty() || row.model.len() > 256 {
        problems.push(format!("{place}: the id is empty or longer than 256"));
    }
    if !MODEL_MODES.contains(&row.mode.as_str()) {
        problems.push(format!("{place}: mode `{}` is unknown", row.mode));
    }
    for capability in row.caps.keys() {
        if !MODEL_CAPABILITIES.contains(&capability.as_str()) {
            problems.push(format!("{place}: capability `{capability}` is unknown"));
        }
    }
    for unit in row.per_unit.keys() {
        if !UNITS.contains(&unit.as_str()) {
            problems.push(format!("{place}: unit `{unit}` is unknown"));
        }
    }
    let prices = [
        row.input,
        row.output,
        row.cached_read,
        row.cache_write,
        row.cache_write_1h,
        row.reasoning,
        row.fast,
        row.flex,
        row.flex_cached,
        row.priority,
    ];
    let units = row.per_unit.values().copied();
    if prices.into_iter().flatten().chain(units).any(|price| !(0.0..10_000.0).contains(&price)) {
        problems.push(format!("{place}: a price is negative or absurd"));
    }
    if row.tiers.windows(2).any(|pair| pair[0].above_tokens >= pair[1].above_tokens) {
        problems.push(format!("{place}: tiers are not in rising order"));
    }
    problems
}

/// Whether `name` can stand before the slash of a model name.
pub(crate) fn is_prefix(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 64
        && name.bytes().next().is_some_and(allowed)
        && name.bytes().all(|byte| allowed(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

fn check_url(spec: &ProviderSpec, url: &str) -> Result<(), String> {
    let mut filled = url.to_owned();
    for name in variables(url) {
        let known = spec.vars.contains_key(name) || matches!(name, "model" | "voice");
        if !known {
            return Err(format!("`{{{name}}}` in `{url}` is not among `vars`"));
        }
        filled = filled.replace(&format!("{{{name}}}"), "x");
    }
    let uri: http::Uri = filled.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(()),
        _ => Err(format!("`{url}` is not an http or https URL")),
    }
}

fn check_auth(auth: &Auth) -> Result<(), String> {
    match (auth.kind, &auth.header) {
        (AuthKind::None, Some(_)) => Err("kind `none` has a header".to_owned()),
        (AuthKind::None, None) => Ok(()),
        (_, None) => Err("no header".to_owned()),
        (_, Some(header)) if http::HeaderName::from_bytes(header.as_bytes()).is_err() => {
            Err(format!("`{header}` is not a header name"))
        }
        (_, Some(_)) if auth.prefix.is_none() => Err("no prefix; say \"\" if there is none".to_owned()),
        (_, Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::catalog::{catalog, parse_spec};

    #[test]
    fn faults_are_named() {
        let sound = serde_json::to_string(catalog().provider("groq").unwrap().as_ref()).unwrap();
        assert!(parse_spec(&sound).is_ok());
        let cases = [
            (r#""id":"groq""#, r#""id":"Groq!""#, "`Groq!` is not a valid id"),
            (r#""id":"groq""#, r#""id":"ollama-compatible-groq""#, "begins as ids of"),
            (r#""dialect":"openai-chat""#, r#""dialect":"esperanto""#, "dialect `esperanto` is unknown"),
            ("https://api.groq.com", "ftp://api.groq.com", "not an http or https URL"),
            ("api.groq.com", "{where}.groq.com", "`{where}` in"),
            (r#""kind":"api_key""#, r#""kind":"none""#, "kind `none` has a header"),
            (r#""chat","#, r#""chat","cooking","#, "capability `cooking` is unknown"),
            (r#""/models""#, r#""models""#, "begins neither with"),
            (r#""alias":"groq""#, r#""alias":"combo""#, "`combo` is reserved"),
            (r#""notes""#, r#""note""#, "unknown field `note`"),
        ];
        for (from, to, want) in cases {
            assert!(sound.contains(from), "{from} in {sound}");
            let error = parse_spec(&sound.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(want), "{want}: {error}");
        }
    }
}
