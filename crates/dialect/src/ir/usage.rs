//! Tokens, in buckets that do not overlap.

/// What an answer used. Absent is not zero: a zero that the upstream sent is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to a cache.
    pub input_uncached: Option<u64>,
    /// Prompt tokens read from a cache.
    pub cache_read: Option<u64>,
    /// Prompt tokens written to a cache for five minutes (or for a time not told).
    pub cache_write: Option<u64>,
    /// Prompt tokens written to a cache for an hour.
    pub cache_write_1h: Option<u64>,
    /// Audio tokens among the uncached prompt tokens.
    pub audio_input: Option<u64>,
    /// All produced tokens, reasoning included.
    pub output_total: Option<u64>,
    /// Produced tokens spent on reasoning, contained in `output_total`.
    pub reasoning: Option<u64>,
    /// Produced audio tokens, contained in `output_total`.
    pub audio_output: Option<u64>,
    /// What the upstream says that it billed, in billionths of its unit, which is a US dollar where anybody goes by it.
    pub billed_nano: Option<u64>,
    /// In which tier it was served: its tokens may have another price there. `None` = nobody told, so that it is the usual one.
    pub tier: Option<Tier>,
}

/// A tier of service, as far as vendors bill it in another way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tier {
    /// The usual one.
    #[default]
    Standard,
    /// Slower, and cheaper with most.
    Flex,
    /// Ahead of others.
    Priority,
    /// At a higher speed.
    Fast,
    /// One that nobody here knows.
    Other,
}

impl Tier {
    /// The tier of a word, in any dialect.
    pub fn of_word(word: &str) -> Self {
        let is = |known: &[&str]| known.iter().any(|known| word.eq_ignore_ascii_case(known));
        // `auto` leaves it to what an account is set to, which is the usual one unless somebody changed it.
        if is(&["default", "standard", "auto", "standard_only", "on_demand", "unspecified", ""])
            || is(&["service_tier_unspecified", "traffic_type_unspecified"])
        {
            Self::Standard
        } else if is(&["flex", "on_demand_flex"]) {
            Self::Flex
        } else if is(&["priority", "on_demand_priority"]) {
            Self::Priority
        } else if is(&["fast"]) {
            Self::Fast
        } else {
            Self::Other
        }
    }

    /// The tier that an answer names; `None` where it names none.
    pub fn of_answer(word: &str) -> Option<Self> {
        let is_open = word.is_empty() || word.eq_ignore_ascii_case("auto");
        (!is_open).then(|| Self::of_word(word))
    }

    /// The word in the API; `None` for the usual one.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Standard => None,
            Self::Flex => Some("flex"),
            Self::Priority => Some("priority"),
            Self::Fast => Some("fast"),
            Self::Other => Some("other"),
        }
    }
}

impl Usage {
    /// Whether the upstream told anything.
    pub fn is_known(&self) -> bool {
        self.input_total().is_some() || self.output_total.is_some()
    }

    /// All prompt tokens: uncached, read and written.
    pub fn input_total(&self) -> Option<u64> {
        let parts = [self.input_uncached, self.cache_read, self.cache_write, self.cache_write_1h];
        parts.iter().any(Option::is_some).then(|| parts.iter().flatten().sum())
    }

    /// Adds what another call used. What neither tells stays untold.
    pub fn add(&mut self, other: &Self) {
        fn sum(mine: &mut Option<u64>, theirs: Option<u64>) {
            if let Some(theirs) = theirs {
                *mine = Some(mine.unwrap_or(0).saturating_add(theirs));
            }
        }
        sum(&mut self.input_uncached, other.input_uncached);
        sum(&mut self.cache_read, other.cache_read);
        sum(&mut self.cache_write, other.cache_write);
        sum(&mut self.cache_write_1h, other.cache_write_1h);
        sum(&mut self.audio_input, other.audio_input);
        sum(&mut self.output_total, other.output_total);
        sum(&mut self.reasoning, other.reasoning);
        sum(&mut self.audio_output, other.audio_output);
        sum(&mut self.billed_nano, other.billed_nano);
        self.learn_tier(other.tier);
    }

    /// What is left of it when so many tokens of prompt and answer are taken off: of the prompt first those that were not
    /// cached. What an upstream billed of its own is not of parts.
    pub fn less(&self, mut input: u64, mut output: u64) -> Self {
        fn off(mine: &mut Option<u64>, tokens: &mut u64) {
            if let Some(mine) = mine {
                let taken = (*mine).min(*tokens);
                *mine -= taken;
                *tokens -= taken;
            }
        }
        let mut rest = *self;
        for part in
            [&mut rest.input_uncached, &mut rest.cache_read, &mut rest.cache_write, &mut rest.cache_write_1h]
        {
            off(part, &mut input);
        }
        off(&mut rest.output_total, &mut output);
        let most = |part: &mut Option<u64>, whole: Option<u64>| {
            *part = part.map(|tokens| tokens.min(whole.unwrap_or(tokens)));
        };
        most(&mut rest.audio_input, rest.input_uncached);
        most(&mut rest.reasoning, rest.output_total);
        most(&mut rest.audio_output, rest.output_total);
        rest
    }

    /// Takes over the members that `later` has.
    pub fn update(&mut self, later: &Self) {
        fn take(mine: &mut Option<u64>, theirs: Option<u64>) {
            if theirs.is_some() {
                *mine = theirs;
            }
        }
        take(&mut self.input_uncached, later.input_uncached);
        take(&mut self.cache_read, later.cache_read);
        take(&mut self.cache_write, later.cache_write);
        take(&mut self.cache_write_1h, later.cache_write_1h);
        take(&mut self.audio_input, later.audio_input);
        take(&mut self.output_total, later.output_total);
        take(&mut self.reasoning, later.reasoning);
        take(&mut self.audio_output, later.audio_output);
        take(&mut self.billed_nano, later.billed_nano);
        self.learn_tier(later.tier);
    }

    /// Takes over a tier that was told. Only another one than the usual takes the place of one that is known.
    pub fn learn_tier(&mut self, tier: Option<Tier>) {
        if self.tier.is_none() || tier.is_some_and(|tier| tier != Tier::Standard) {
            self.tier = tier.or(self.tier);
        }
    }
}
