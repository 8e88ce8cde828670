//! What a model can do, for the encoders of dialects: from its row, its provider, and its name where rows do not say.

mod claude;
mod gemini;
mod openai;

use claude::Claude;
use omniroute_dialect::{CacheMarks, Caps, ReasoningKnob};

use crate::{
    ProviderSpec,
    dialects::{ANTHROPIC, OPENAI_CHAT},
    model::ModelSpec,
};

/// What holds for all models of some providers.
struct ProviderRule {
    ids: &'static [&'static str],
    apply: fn(&mut Caps),
}

static PROVIDER_RULES: &[ProviderRule] = &[
    ProviderRule {
        ids: &["openai", "azure"],
        apply: |caps| {
            caps.developer_role = true;
            caps.max_completion_tokens = true;
            caps.mid_conversation_system = true;
            caps.custom_tools = true;
        },
    },
    ProviderRule { ids: &["openai"], apply: |caps| caps.cache_marks = CacheMarks::Breakpoint },
    // It hands them to the vendors that take them, and leaves them out for others.
    ProviderRule { ids: &["openrouter"], apply: |caps| caps.cache_marks = CacheMarks::Control },
    // Servers and hosts of open models, which take the sampling parameters of vLLM and llama.cpp.
    ProviderRule {
        ids: &[
            "deepinfra",
            "featherless",
            "fireworks",
            "hyperbolic",
            "llamacpp",
            "lmstudio",
            "novita",
            "openrouter",
            "parasail",
            "sglang",
            "siliconflow",
            "together",
            "vllm",
        ],
        apply: |caps| {
            caps.top_k = true;
            caps.inline_thinking = true;
        },
    },
    // Models of theirs think aloud, or they leave it to the model's template.
    ProviderRule {
        ids: &[
            "baseten",
            "chutes",
            "gmi",
            "groq",
            "huggingface",
            "localai",
            "minimax",
            "minimax-cn",
            "nebius",
            "nvidia",
            "sambanova",
            "xinference",
        ],
        apply: |caps| caps.inline_thinking = true,
    },
    // It caches nothing unasked, and all its models can search.
    ProviderRule {
        ids: &["anthropic"],
        apply: |caps| {
            caps.auto_cache = true;
            caps.web_search = true;
        },
    },
    // All its models search; the switch only says how.
    ProviderRule {
        ids: &["perplexity"],
        apply: |caps| {
            caps.web_search = true;
            caps.inline_thinking = true;
        },
    },
    // Their models think or do not, and want back what they thought before they called a tool.
    ProviderRule {
        ids: &["deepseek", "moonshot", "moonshot-cn", "zai", "zhipu"],
        apply: |caps| {
            caps.reasoning_knob = ReasoningKnob::ThinkingType;
            caps.reasoning_in_history = true;
        },
    },
    ProviderRule {
        ids: &["byteplus", "volcengine"],
        apply: |caps| caps.reasoning_knob = ReasoningKnob::ThinkingType,
    },
    ProviderRule {
        ids: &["alibaba", "alibaba-cn", "modelscope", "siliconflow", "siliconflow-cn"],
        apply: |caps| caps.reasoning_knob = ReasoningKnob::EnableThinking,
    },
    ProviderRule { ids: &["openrouter"], apply: |caps| caps.reasoning_knob = ReasoningKnob::Reasoning },
    // They hand the switch to the model's template.
    ProviderRule {
        ids: &["sglang", "vllm"],
        apply: |caps| caps.reasoning_knob = ReasoningKnob::TemplateSwitch,
    },
    // The vendors of its models fetch addresses at their own endpoints alone.
    ProviderRule {
        ids: &["vertex"],
        apply: |caps| {
            caps.media_urls = false;
            caps.gemini.excluded_domains = true;
        },
    },
    // They refuse members they do not know, and report usage unasked. They go on from an answer that has begun.
    ProviderRule {
        ids: &["codestral", "mistral"],
        apply: |caps| {
            caps.stream_options = false;
            caps.prefill = true;
            caps.prefix_mark = true;
            caps.schema_without = &["$id", "$schema"];
            caps.answer_schema_without = &["$id", "$schema", "format", "maxLength", "minLength", "pattern"];
        },
    },
];

/// Capabilities of a model. `row` is what the catalogue (or the operator) knows of it, if anything.
pub fn caps_of(spec: &ProviderSpec, model: &str, row: Option<&ModelSpec>) -> Caps {
    let mut caps = Caps::permissive();
    if let Some(row) = row {
        apply_row(&mut caps, row);
    }
    for rule in PROVIDER_RULES.iter().filter(|rule| rule.ids.contains(&spec.id.as_str())) {
        (rule.apply)(&mut caps);
    }
    if let Some(claude) = Claude::parse(model) {
        claude.apply(&mut caps);
    } else if spec.dialect == ANTHROPIC {
        // An unknown model behind an Anthropic endpoint of somebody else: the plain old dialect.
        caps.prefill = true;
    }
    gemini::apply(&mut caps, spec, model);
    openai::apply(&mut caps, model);
    if model.contains("-search") && spec.dialect == OPENAI_CHAT {
        caps.web_search = true;
    }
    // Models before GPT-5.6 refuse the member: <https://developers.openai.com/api/docs/guides/prompt-caching>.
    if caps.cache_marks == CacheMarks::Breakpoint
        && openai::gpt_version(model).is_none_or(|version| version < (5, 6))
    {
        caps.cache_marks = CacheMarks::None;
    }
    // OpenAI's open models have levels, whoever serves them.
    if model.contains("gpt-oss") && caps.reasoning_knob != ReasoningKnob::Reasoning {
        caps.reasoning_knob = ReasoningKnob::Effort;
    }
    caps
}

fn apply_row(caps: &mut Caps, row: &ModelSpec) {
    caps.max_output_tokens = row.max_output;
    caps.context_window = row.context_window;
    caps.fast = row.fast.is_some();
    let flag = |name: &str| row.caps.get(name).copied();
    // For tools and schemas silence means that nobody looked; for what goes in and for reasoning it means no.
    caps.tools = flag("tools").or(flag("tool_choice")).unwrap_or(true);
    caps.json_schema = flag("json_schema").unwrap_or(true);
    if !row.caps.is_empty() {
        caps.vision = flag("vision").unwrap_or(false);
        caps.pdf = flag("pdf").unwrap_or(false);
        caps.audio_input = flag("audio_in").unwrap_or(false);
        caps.reasoning = flag("reasoning").unwrap_or(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::catalog;

    fn caps(provider: &str, model: &str) -> Caps {
        let spec = catalog().provider(provider).unwrap();
        caps_of(spec, model, catalog().model(&spec.id, model))
    }

    #[test]
    fn openai_models_and_those_of_others() {
        // sampling, max_completion_tokens, developer role, reasoning, vision
        let cases = [
            ("openai", "gpt-4o", [true, true, true, false, true]),
            ("openai", "gpt-5-mini", [false, true, true, true, true]),
            ("openai", "o3", [false, true, true, true, true]),
            ("openai", "gpt-5-search-api", [true, true, true, false, true]),
            ("openrouter", "openai/gpt-6-sol", [false, false, false, true, true]),
            ("groq", "openai/gpt-oss-120b", [true, false, false, true, false]),
            ("deepseek", "deepseek-v4-pro", [true, false, false, true, false]),
            ("ollama", "olmo2", [true, false, false, true, true]),
        ];
        for (provider, model, want) in cases {
            let caps = caps(provider, model);
            let found =
                [caps.sampling, caps.max_completion_tokens, caps.developer_role, caps.reasoning, caps.vision];
            assert_eq!(found, want, "{provider}/{model}");
        }
        assert_eq!(caps("openai", "gpt-4o").max_output_tokens, Some(16_384));
        assert!(caps("anthropic", "claude-opus-5").fast && !caps("anthropic", "claude-sonnet-5-5").fast);
        assert!(caps("together", "x").top_k);
        let mistral = caps("mistral", "mistral-large-latest");
        assert!(!mistral.stream_options && mistral.prefill && mistral.prefix_mark);
        assert!(mistral.schema_without.iter().all(|word| mistral.answer_schema_without.contains(word)));
        let claude = |provider| caps(provider, "claude-opus-5-5").media_urls;
        assert!(claude("anthropic") && !claude("vertex"));
        let excludes = |provider| caps(provider, "gemini-3.8-flash").gemini.excluded_domains;
        assert!(excludes("vertex") && !excludes("gemini"));
    }

    #[test]
    fn every_vendor_has_its_knob_for_reasoning() {
        for (provider, model, knob, in_history) in [
            ("openai", "gpt-5", ReasoningKnob::Effort, false),
            ("deepseek", "deepseek-v4-pro", ReasoningKnob::ThinkingType, true),
            ("zai", "glm-4.7", ReasoningKnob::ThinkingType, true),
            ("alibaba", "qwen3-max", ReasoningKnob::EnableThinking, false),
            ("openrouter", "openai/gpt-oss-120b", ReasoningKnob::Reasoning, false),
            ("vllm", "Qwen/Qwen3-8B", ReasoningKnob::TemplateSwitch, false),
            ("vllm", "openai/gpt-oss-20b", ReasoningKnob::Effort, false),
        ] {
            let caps = caps(provider, model);
            let found = (caps.reasoning_knob, caps.reasoning_in_history);
            assert_eq!(found, (knob, in_history), "{provider}/{model}");
        }
        for (model, marks) in [
            ("gpt-5.6", CacheMarks::Breakpoint),
            ("gpt-5.6-terra", CacheMarks::Breakpoint),
            ("gpt-5.10-mini", CacheMarks::Breakpoint),
            ("gpt-6", CacheMarks::Breakpoint),
            ("gpt-5.5", CacheMarks::None),
            ("gpt-5", CacheMarks::None),
            ("gpt-4o", CacheMarks::None),
            ("o3", CacheMarks::None),
            ("some-model", CacheMarks::None),
        ] {
            assert_eq!(caps("openai", model).cache_marks, marks, "{model}");
        }
        let marks = |provider| caps(provider, "some-model").cache_marks;
        assert_eq!((marks("openrouter"), marks("groq")), (CacheMarks::Control, CacheMarks::None));
        assert!(caps("anthropic", "claude-opus-4-6").auto_cache && !caps("bedrock", "x").auto_cache);
    }

    #[test]
    fn rules_name_known_providers() {
        for id in PROVIDER_RULES.iter().flat_map(|rule| rule.ids) {
            assert!(catalog().provider(id).is_some_and(|spec| spec.id.as_str() == *id), "{id}");
        }
    }
}
