//! What a target can do. Data, from the provider's and the model's entries; checked while encoding.

use serde_json::value::RawValue;

use crate::ir::{ChatRequest, Effort, ReasoningAmount};

/// Capabilities of a (provider, model). Unknown models get [`Caps::permissive`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// Most tokens the model may produce, if known.
    pub max_output_tokens: Option<u64>,
    /// Tokens of context, if known.
    pub context_window: Option<u64>,
    /// Takes images.
    pub vision: bool,
    /// Takes PDF files.
    pub pdf: bool,
    /// Takes audio.
    pub audio_input: bool,
    /// Takes tool definitions.
    pub tools: bool,
    /// Takes `temperature`, `top_p`, `top_k`.
    pub sampling: bool,
    /// Takes a JSON schema for its output.
    pub json_schema: bool,
    /// Takes `temperature` and `top_p` while it does not reason, where it takes none of them else.
    pub sampling_at_rest: bool,
    /// Does not reason unless it is asked to.
    pub rests_by_default: bool,
    /// Takes `temperature` or `top_p`, and not both.
    pub one_sampler: bool,
    /// Can reason, and takes the knobs for it.
    pub reasoning: bool,
    /// Thinks adaptively: takes an effort instead of a token budget.
    pub adaptive_thinking: bool,
    /// The levels of effort that it has words for, the lowest first, where it takes words and the Gemini dialect is not
    /// its own.
    pub efforts: &'static [Effort],
    /// How it is told not to reason.
    pub reasoning_off: ReasoningOff,
    /// Keywords that it refuses in schemas.
    pub schema_without: &'static [&'static str],
    /// Keywords that it refuses in schemas of its answer, these among them.
    pub answer_schema_without: &'static [&'static str],
    /// Can be made to call a tool.
    pub forced_calls: bool,
    /// Fetches images and documents itself, where its dialect has a place for their addresses.
    pub media_urls: bool,
    /// Takes a trailing assistant turn to continue.
    pub prefill: bool,
    /// Wants the mark `prefix` at such a turn, where it speaks OpenAI's dialect.
    pub prefix_mark: bool,
    /// Takes `developer` and several system messages (the vendor's own OpenAI-dialect endpoint).
    pub developer_role: bool,
    /// Wants `max_completion_tokens` instead of `max_tokens`.
    pub max_completion_tokens: bool,
    /// Takes `top_k` although the dialect has none.
    pub top_k: bool,
    /// Takes `stream_options`.
    pub stream_options: bool,
    /// Takes system messages within the conversation.
    pub mid_conversation_system: bool,
    /// Takes tools whose input is free text.
    pub custom_tools: bool,
    /// Writes its reasoning into the text, between tags.
    pub inline_thinking: bool,
    /// Searches the web when it is asked to, where not every model of the dialect does.
    pub web_search: bool,
    /// Marks long prompts for its cache when the client's dialect has no marks (it caches nothing unasked).
    pub auto_cache: bool,
    /// Can be asked to answer at a higher speed, for a higher price (Anthropic's `speed`).
    pub fast: bool,
    /// How it is told how much to reason, where it speaks OpenAI's dialect.
    pub reasoning_knob: ReasoningKnob,
    /// How it is told up to where a prompt may be cached, where it speaks one of OpenAI's dialects.
    pub cache_marks: CacheMarks,
    /// Wants the reasoning behind tool calls back in the history (`reasoning_content`).
    pub reasoning_in_history: bool,
    /// What only the Gemini dialect makes a difference of.
    pub gemini: GeminiCaps,
}

/// Where models behind the Gemini dialect differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeminiCaps {
    /// Takes JSON Schema for functions and answers, not only the vendor's own kind of schemas.
    pub json_schema: bool,
    /// The levels of thinking that it takes; with none it takes a budget of tokens.
    pub thinking_levels: &'static [Effort],
    /// The least and the most tokens that it takes as a budget.
    pub thinking_budget: (u64, u64),
    /// Can be told not to think at all.
    pub thinking_off: bool,
    /// Refuses a call in the history whose signature is missing.
    pub signed_calls: bool,
    /// Takes pictures and documents within the result of a call, and how closely to look at each picture.
    pub multimodal_results: bool,
    /// Takes a system instruction.
    pub system: bool,
    /// Takes a schema for its answer together with functions.
    pub schema_with_tools: bool,
    /// Takes penalties.
    pub penalties: bool,
    /// Takes the domains that a search leaves out. Only Vertex knows the word; the vendor's other endpoint refuses it.
    pub excluded_domains: bool,
}

impl GeminiCaps {
    /// Everything is believed to work until the upstream says otherwise. Budgets are what all models take.
    pub const fn permissive() -> Self {
        Self {
            json_schema: true,
            thinking_levels: &[],
            thinking_budget: (0, 32_768),
            thinking_off: true,
            signed_calls: false,
            multimodal_results: true,
            system: true,
            schema_with_tools: true,
            penalties: true,
            excluded_domains: false,
        }
    }
}

/// How a model is told not to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningOff {
    /// With the dialect's own word for it (`none`, `disabled`).
    Word,
    /// With a word for thinking between calls of tools alone (Anthropic's `between_tools`).
    BetweenTools,
    /// Not at all: the least that it can is the nearest.
    Least,
}

/// How a target that speaks OpenAI's dialect is told how much to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningKnob {
    /// `reasoning_effort`.
    Effort,
    /// `thinking: {"type": "enabled"}`; DeepSeek, GLM, Kimi.
    ThinkingType,
    /// `enable_thinking` and `thinking_budget`; Qwen.
    EnableThinking,
    /// `reasoning: {"effort": …}`; OpenRouter.
    Reasoning,
    /// `chat_template_kwargs: {"enable_thinking": …}`; servers that leave it to the model's template.
    TemplateSwitch,
}

/// How a target that speaks one of OpenAI's dialects is told up to where a prompt may be cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMarks {
    /// It is not: it caches by itself, or does not know the word.
    None,
    /// `prompt_cache_breakpoint`; OpenAI itself.
    Breakpoint,
    /// `cache_control`, as Anthropic writes it; those who sell its models in this dialect.
    Control,
}

/// Whether a temperature is one that OpenAI's dialects do not have.
pub(crate) fn is_above_two(temperature: &RawValue) -> bool {
    temperature.get().parse::<f64>().is_ok_and(|value| value > 2.0)
}

impl Caps {
    /// Whether a model that speaks one of OpenAI's dialects takes sampling parameters with this request.
    pub(crate) fn takes_sampling(&self, request: &ChatRequest) -> bool {
        let rests = match request.reasoning.amount {
            ReasoningAmount::Off | ReasoningAmount::Budget(0) => true,
            ReasoningAmount::Default => self.rests_by_default,
            _ => false,
        };
        // Only where the word is known it is told to rest.
        self.sampling || (self.sampling_at_rest && self.max_completion_tokens && rests)
    }

    /// Everything is believed to work until the upstream says otherwise.
    pub const fn permissive() -> Self {
        Self {
            max_output_tokens: None,
            context_window: None,
            vision: true,
            pdf: true,
            audio_input: true,
            tools: true,
            sampling: true,
            sampling_at_rest: false,
            rests_by_default: false,
            one_sampler: false,
            json_schema: true,
            reasoning: true,
            adaptive_thinking: false,
            efforts: &[Effort::Minimal, Effort::Low, Effort::Medium, Effort::High],
            reasoning_off: ReasoningOff::Word,
            schema_without: &[],
            answer_schema_without: &[],
            forced_calls: true,
            media_urls: true,
            prefill: false,
            prefix_mark: false,
            developer_role: false,
            max_completion_tokens: false,
            top_k: false,
            stream_options: true,
            mid_conversation_system: false,
            custom_tools: false,
            inline_thinking: false,
            web_search: false,
            auto_cache: false,
            fast: false,
            reasoning_knob: ReasoningKnob::Effort,
            cache_marks: CacheMarks::None,
            reasoning_in_history: false,
            gemini: GeminiCaps::permissive(),
        }
    }
}
