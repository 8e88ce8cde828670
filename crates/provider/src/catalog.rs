//! The catalogue: every provider and model the gateway knows without being told. Files are in `catalog/`.
//!
//! Provider files are read once, on first use; model files when somebody asks for a provider's models.

mod check;
mod list;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

pub(crate) use check::is_prefix;
pub use check::{
    CAPABILITIES, MODEL_CAPABILITIES, MODEL_MODES, RESERVED_PREFIXES, UNITS, problems_of, problems_of_row,
};

use crate::{ProviderId, ProviderSpec, model::ModelSpec, registry, spec::Category};

/// Every provider, and the models of each.
#[derive(Clone)]
pub struct Catalog {
    providers: Vec<Arc<ProviderSpec>>,
    names: BTreeMap<String, usize>,
    shelves: BTreeMap<ProviderId, Arc<Shelf>>,
}

/// How gateways spell makers whose providers are called otherwise.
static MAKERS: &[(&str, &str)] = &[
    ("amazon", "bedrock"),
    ("meta", "meta-llama"),
    ("mistralai", "mistral"),
    ("moonshotai", "moonshot"),
    ("nousresearch", "nous-research"),
    ("x-ai", "xai"),
    ("z-ai", "zai"),
];

/// How a model name was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelMatch {
    /// It is a row's own id.
    Exact,
    /// It is another id of the row: a listed alias, or the same name with or without a date.
    Dated,
}

struct Shelf {
    text: &'static str,
    rows: OnceLock<Rows>,
}

struct Rows {
    rows: Vec<ModelSpec>,
    ids: BTreeMap<String, usize>,
    others: BTreeMap<String, usize>,
}

/// The catalogue that is built in.
pub fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(Catalog::built_in);
    &CATALOG
}

/// Reads one provider file of the operator's.
pub fn parse_spec(text: &str) -> Result<ProviderSpec, String> {
    let spec: ProviderSpec = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match problems_of(&spec) {
        problems if problems.is_empty() => Ok(spec),
        problems => Err(problems.join("; ")),
    }
}

impl Catalog {
    fn built_in() -> Self {
        let parse = |&(id, text): &(&str, &str)| -> ProviderSpec {
            serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("{id}.json: {error}; a test reads every file"))
        };
        let mut providers: Vec<ProviderSpec> = list::PROVIDERS.iter().map(parse).collect();
        providers.push(registry::sim_spec());
        let shelf = |&(id, text): &(&str, &'static str)| {
            (ProviderId::from(id), Arc::new(Shelf { text, rows: OnceLock::new() }))
        };
        let shelves = list::MODELS.iter().map(shelf).collect();
        Self::index(providers.into_iter().map(Arc::new).collect(), shelves)
            .unwrap_or_else(|problems| panic!("{}; a test reads every file", problems.join("; ")))
    }

    /// This catalogue with an operator's providers added. One with a known id replaces it.
    pub fn with(&self, specs: Vec<ProviderSpec>) -> Result<Self, Vec<String>> {
        let mut providers = self.providers.clone();
        for spec in specs {
            let spec = Arc::new(spec);
            match providers.iter_mut().find(|known| known.id == spec.id) {
                Some(known) => *known = spec,
                None => providers.push(spec),
            }
        }
        Self::index(providers, self.shelves.clone())
    }

    fn index(
        mut providers: Vec<Arc<ProviderSpec>>,
        shelves: BTreeMap<ProviderId, Arc<Shelf>>,
    ) -> Result<Self, Vec<String>> {
        providers.sort_by(|a, b| (a.category, &a.id).cmp(&(b.category, &b.id)));
        let mut names = BTreeMap::new();
        let mut problems = Vec::new();
        for (at, spec) in providers.iter().enumerate() {
            let mut own = vec![spec.id.as_str(), spec.alias.as_str()];
            own.extend(spec.aliases.iter().map(String::as_str));
            for name in own {
                match names.insert(name.to_owned(), at) {
                    Some(other) if other != at => {
                        let other = &providers[other].id;
                        problems.push(format!("`{name}` names both `{other}` and `{}`", spec.id));
                    }
                    _ => {}
                }
            }
        }
        if problems.is_empty() { Ok(Self { providers, names, shelves }) } else { Err(problems) }
    }

    /// Every provider, by category and id; the simulator is last.
    pub fn providers(&self) -> &[Arc<ProviderSpec>] {
        &self.providers
    }

    /// How many providers there are; the simulator does not count.
    pub fn count(&self) -> usize {
        self.providers.iter().filter(|spec| spec.id.as_str() != registry::SIM).count()
    }

    /// The provider with this id, alias or other prefix.
    pub fn provider(&self, name: &str) -> Option<&Arc<ProviderSpec>> {
        self.names.get(name).map(|&at| &self.providers[at])
    }

    /// Every model that is known of a provider.
    pub fn models_of(&self, provider: &ProviderId) -> &[ModelSpec] {
        self.shelves.get(provider).map_or(&[], |shelf| &shelf.rows().rows)
    }

    /// The row of a model. `model` may also be a dated name of an undated row, or the other way round.
    pub fn model(&self, provider: &ProviderId, model: &str) -> Option<&ModelSpec> {
        self.find_model(provider, model).map(|(row, _)| row)
    }

    /// The row of a model and how it was found.
    pub fn find_model(&self, provider: &ProviderId, model: &str) -> Option<(&ModelSpec, ModelMatch)> {
        let shelf = self.shelves.get(provider)?.rows();
        if let Some(&at) = shelf.ids.get(model) {
            return Some((&shelf.rows[at], ModelMatch::Exact));
        }
        let undated = without_date(model);
        let at = shelf
            .others
            .get(model)
            .or_else(|| shelf.ids.get(undated))
            .or_else(|| shelf.others.get(undated))?;
        Some((&shelf.rows[*at], ModelMatch::Dated))
    }

    /// The row that the maker of a resold model has for it: `anthropic/claude-sonnet-4.5` at a gateway is
    /// `claude-sonnet-4-5` at its maker. `None` if `provider` is no gateway, or the model is sold for nothing.
    pub fn home_row(&self, provider: &ProviderId, model: &str) -> Option<&ModelSpec> {
        if self.provider(provider.as_str())?.category != Category::Gateway {
            return None;
        }
        let (maker, name) = model.split_once('/')?;
        let (name, variant) = name.split_once(':').unwrap_or((name, ""));
        if variant == "free" {
            return None;
        }
        let maker = MAKERS.iter().find(|(spelt, _)| *spelt == maker).map_or(maker, |(_, id)| id);
        let maker = &self.provider(maker)?.id;
        self.model(maker, name).or_else(|| self.model(maker, &name.replace('.', "-")))
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("providers", &self.providers.len()).finish_non_exhaustive()
    }
}

impl Shelf {
    fn rows(&self) -> &Rows {
        self.rows.get_or_init(|| {
            let rows: Vec<ModelSpec> = serde_json::from_str(self.text)
                .unwrap_or_else(|error| panic!("{error}; a test reads every file"));
            let ids: BTreeMap<_, _> =
                rows.iter().enumerate().map(|(at, row)| (row.model.clone(), at)).collect();
            let mut others = BTreeMap::new();
            for (at, row) in rows.iter().enumerate() {
                others.extend(row.aliases.iter().map(|alias| (alias.clone(), at)));
                // Rows are sorted by name, so that of several dates the latest stays.
                others.insert(without_date(&row.model).to_owned(), at);
            }
            Rows { rows, ids, others }
        })
    }
}

/// A model name without a date at its end: `-20251001`, `@20251001` or `-2025-10-01`.
fn without_date(model: &str) -> &str {
    fn digits(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    }
    let Some(at) = model.rfind(['-', '@']) else { return model };
    let (head, tail) = (&model[..at], &model[at + 1..]);
    if tail.len() == 8 && digits(tail) && tail.starts_with("20") {
        return head;
    }
    if tail.len() == 2 && digits(tail) {
        let mut parts = head.rsplitn(3, '-');
        if let (Some(month), Some(year), Some(rest)) = (parts.next(), parts.next(), parts.next())
            && month.len() == 2
            && digits(month)
            && year.len() == 4
            && digits(year)
        {
            return rest;
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_sound() {
        let mut problems = Vec::new();
        for (id, text) in list::PROVIDERS {
            match serde_json::from_str::<ProviderSpec>(text) {
                Ok(spec) => {
                    problems.extend(
                        problems_of(&spec).into_iter().map(|problem| format!("{id}.json: {problem}")),
                    );
                    if spec.id.as_str() != *id {
                        problems.push(format!("{id}.json says it is `{}`", spec.id));
                    }
                }
                Err(error) => problems.push(format!("{id}.json: {error}")),
            }
        }
        for (id, text) in list::MODELS {
            let rows: Vec<ModelSpec> = match serde_json::from_str(text) {
                Ok(rows) => rows,
                Err(error) => {
                    problems.push(format!("models/{id}.json: {error}"));
                    continue;
                }
            };
            if catalog().provider(id).is_none_or(|spec| spec.id.as_str() != *id) {
                problems.push(format!("models/{id}.json belongs to no provider"));
            }
            let mut seen = std::collections::BTreeSet::new();
            for row in &rows {
                problems.extend(problems_of_row(id, row));
                if !seen.insert(&row.model) {
                    problems.push(format!("models/{id}.json has `{}` twice", row.model));
                }
            }
        }
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn the_list_holds_every_file_of_the_folder() {
        for (folder, listed) in [("providers", list::PROVIDERS), ("models", list::MODELS)] {
            let path = format!("{}/catalog/{folder}", env!("CARGO_MANIFEST_DIR"));
            let mut names: Vec<String> = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| {
                    entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".json").to_owned()
                })
                .collect();
            names.sort();
            let mut listed: Vec<&str> = listed.iter().map(|(id, _)| *id).collect();
            listed.sort_unstable();
            assert_eq!(names, listed, "run `cargo xtask catalog list`");
        }
    }

    #[test]
    fn providers_are_found_by_every_prefix() {
        let cases = [
            ("openai", "openai"),
            ("cx", "openai"),
            ("oai", "openai"),
            ("cc", "anthropic"),
            ("claude", "anthropic"),
            ("gc", "gemini"),
            ("google", "gemini"),
            ("gh", "github-models"),
            ("qw", "alibaba"),
            ("glm", "zai"),
            ("kimi", "moonshot"),
            ("ds", "deepseek"),
            ("pplx", "perplexity"),
            ("hyp", "hyperbolic"),
            ("dg", "deepgram"),
            ("aai", "assemblyai"),
            ("ch", "chutes"),
            ("vx", "vertex"),
            ("el", "elevenlabs"),
            ("sim", "sim"),
        ];
        for (name, id) in cases {
            assert_eq!(catalog().provider(name).map(|spec| spec.id.as_str()), Some(id), "{name}");
        }
        for name in ["ag", "if", "kr", "cu", "kmc", "kc", "cl", "oc", "nb", ""] {
            assert!(catalog().provider(name).is_none(), "{name}");
        }
        assert!(catalog().count() >= 129);
        assert_eq!(catalog().providers().last().unwrap().id.as_str(), "sim");
    }

    #[test]
    fn models_are_found_with_and_without_their_date() {
        let cases = [
            ("openai", "gpt-4o", Some(("gpt-4o", ModelMatch::Exact))),
            ("openai", "gpt-4o-2024-08-06", Some(("gpt-4o", ModelMatch::Dated))),
            ("openai", "gpt-4o-2031-01-01", Some(("gpt-4o", ModelMatch::Dated))),
            ("openai", "gpt-4o-mini-2024-07-18", Some(("gpt-4o-mini", ModelMatch::Dated))),
            ("anthropic", "claude-haiku-4-5-20251001", Some(("claude-haiku-4-5", ModelMatch::Dated))),
            ("anthropic", "claude-opus-4-5@20251101", Some(("claude-opus-4-5", ModelMatch::Dated))),
            ("anthropic", "claude-haiku-4-5", Some(("claude-haiku-4-5", ModelMatch::Exact))),
            ("openai", "gpt-4", None),
            ("nobody", "gpt-4o", None),
        ];
        for (provider, model, want) in cases {
            let found = catalog().find_model(&provider.into(), model);
            assert_eq!(found.map(|(row, how)| (row.model.as_str(), how)), want, "{provider}/{model}");
        }
        let rows = r#"[{"provider":"x","model":"a-2025-01-02","mode":"chat"},{"provider":"x","model":"a-2025-03-04","mode":"chat"}]"#;
        let shelf = Shelf { text: rows, rows: OnceLock::new() };
        assert_eq!(shelf.rows().others["a"], 1, "the latest date stands for the undated name");
    }

    #[test]
    fn resold_models_are_found_at_their_maker() {
        let cases = [
            ("openrouter", "openai/gpt-4o", Some("openai gpt-4o")),
            ("openrouter", "openai/gpt-4o-2024-08-06", Some("openai gpt-4o")),
            ("openrouter", "anthropic/claude-sonnet-4.5", Some("anthropic claude-sonnet-4-5")),
            ("openrouter", "anthropic/claude-sonnet-4.5:thinking", Some("anthropic claude-sonnet-4-5")),
            ("openrouter", "google/gemini-2.5-pro", Some("gemini gemini-2.5-pro")),
            ("openrouter", "x-ai/grok-4.5", Some("xai grok-4.5")),
            ("openrouter", "deepseek/deepseek-v4-flash:free", None),
            ("openrouter", "nobody/model", None),
            ("openrouter", "gpt-4o", None),
            ("groq", "openai/gpt-4o", None),
        ];
        for (provider, model, want) in cases {
            let row = catalog().home_row(&provider.into(), model);
            let found = row.map(|row| format!("{} {}", row.provider, row.model));
            assert_eq!(found.as_deref(), want, "{provider}/{model}");
        }
        for (_, id) in MAKERS {
            assert!(catalog().provider(id).is_some_and(|spec| spec.id.as_str() == *id), "{id}");
        }
    }

    #[test]
    fn an_operator_adds_and_replaces() {
        let mut groq = ProviderSpec::clone(catalog().provider("groq").unwrap());
        groq.base_url = "https://groq.example/v1".to_owned();
        let mut mine = groq.clone();
        mine.id = "mine".into();
        mine.alias = "mine".to_owned();
        mine.aliases.clear();
        mine.category = Category::Custom;
        let both = catalog().with(vec![groq, mine.clone()]).unwrap();
        assert_eq!(both.provider("groq").unwrap().base_url, "https://groq.example/v1");
        assert_eq!(both.provider("mine").unwrap().id.as_str(), "mine");
        assert_eq!(both.count(), catalog().count() + 1);
        assert!(both.model(&"groq".into(), "openai/gpt-oss-120b").is_some(), "models stay");

        mine.aliases = vec!["openai".to_owned()];
        let problems = catalog().with(vec![mine]).unwrap_err();
        assert!(problems[0].contains("`openai` names both"), "{problems:?}");
    }
}
