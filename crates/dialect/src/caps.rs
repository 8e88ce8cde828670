//! What a target can do. Data, from the provider's and the model's entries; checked while encoding.

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
    /// Can reason, and takes the knobs for it.
    pub reasoning: bool,
    /// Thinks adaptively: takes an effort instead of a token budget.
    pub adaptive_thinking: bool,
    /// Takes a trailing assistant turn to continue.
    pub prefill: bool,
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
    /// Searches the web when it is asked to, where not every model of the dialect does.
    pub web_search: bool,
    /// Marks long prompts for its cache when the client's dialect has no marks (it caches nothing unasked).
    pub auto_cache: bool,
    /// How it is told how much to reason, where it speaks OpenAI's dialect.
    pub reasoning_knob: ReasoningKnob,
    /// Wants the reasoning behind tool calls back in the history (`reasoning_content`).
    pub reasoning_in_history: bool,
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

impl Caps {
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
            json_schema: true,
            reasoning: true,
            adaptive_thinking: false,
            prefill: false,
            developer_role: false,
            max_completion_tokens: false,
            top_k: false,
            stream_options: true,
            mid_conversation_system: false,
            custom_tools: false,
            web_search: false,
            auto_cache: false,
            reasoning_knob: ReasoningKnob::Effort,
            reasoning_in_history: false,
        }
    }
}
