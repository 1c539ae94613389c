//! The numbers of an answer's `usage`, as each API reports them, and in one form. Pure.

/// The tokens of one answer, or of many. Input that came from a prompt cache or went into one is not part of `input`,
/// so the three add up to all input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// Input without the two below.
    pub input: u64,
    /// Output, with that of reasoning.
    pub output: u64,
    /// Input that the provider read from its prompt cache.
    pub cache_read: u64,
    /// Input that the provider wrote to its prompt cache.
    pub cache_write: u64,
}

/// The object around a number within `usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// `usage` itself.
    Usage,
    /// `prompt_tokens_details` or `input_tokens_details`.
    InputDetails,
    /// `cache_creation`.
    CacheCreation,
    /// Another one, whose numbers are not needed.
    Other,
}

impl Parent {
    /// The object called `name` in `usage`.
    pub(super) fn called(name: &[u8]) -> Self {
        match name {
            b"prompt_tokens_details" | b"input_tokens_details" => Self::InputDetails,
            b"cache_creation" => Self::CacheCreation,
            _ => Self::Other,
        }
    }
}

/// A number that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Anthropic, Bedrock: without cached input. Responses: with it.
    Input,
    Output,
    CacheRead,
    CacheWrite,
    CacheWrite5m,
    CacheWrite1h,
    /// Chat Completions and embeddings: with cached input.
    Prompt,
    Completion,
    /// Chat Completions and Responses: the cached part of the input.
    Cached,
    /// The part of the input that was written to the cache, as gateways report it.
    Written,
    /// Chat Completions of some providers: the cached part, without details.
    CacheHit,
    Total,
    /// Gemini: with cached input.
    PromptCount,
    CandidatesCount,
    ThoughtsCount,
    CachedCount,
    /// Gemini: besides the prompt.
    ToolPromptCount,
}

/// The number of variants of [`Field`].
const FIELDS: usize = Field::ToolPromptCount as usize + 1;

impl Field {
    /// The field called `name` in `parent`.
    pub(super) fn called(parent: Parent, name: &[u8]) -> Option<Self> {
        Some(match (parent, name) {
            (Parent::Usage, b"input_tokens" | b"inputTokens") => Self::Input,
            (Parent::Usage, b"output_tokens" | b"outputTokens") => Self::Output,
            (Parent::Usage, b"cache_read_input_tokens" | b"cacheReadInputTokens") => {
                Self::CacheRead
            }
            (Parent::Usage, b"cache_creation_input_tokens" | b"cacheWriteInputTokens") => {
                Self::CacheWrite
            }
            (Parent::CacheCreation, b"ephemeral_5m_input_tokens") => Self::CacheWrite5m,
            (Parent::CacheCreation, b"ephemeral_1h_input_tokens") => Self::CacheWrite1h,
            (Parent::Usage, b"prompt_tokens") => Self::Prompt,
            (Parent::Usage, b"completion_tokens") => Self::Completion,
            (Parent::InputDetails, b"cached_tokens") => Self::Cached,
            (Parent::InputDetails, b"cache_write_tokens" | b"cache_creation_tokens") => {
                Self::Written
            }
            (Parent::Usage, b"prompt_cache_hit_tokens" | b"cached_tokens") => Self::CacheHit,
            (Parent::Usage, b"total_tokens" | b"totalTokens") => Self::Total,
            (Parent::Usage, b"promptTokenCount") => Self::PromptCount,
            (Parent::Usage, b"candidatesTokenCount") => Self::CandidatesCount,
            (Parent::Usage, b"thoughtsTokenCount") => Self::ThoughtsCount,
            (Parent::Usage, b"cachedContentTokenCount") => Self::CachedCount,
            (Parent::Usage, b"toolUsePromptTokenCount") => Self::ToolPromptCount,
            _ => return None,
        })
    }
}

/// The mark of a field that was not reported.
const ABSENT: u64 = u64::MAX;
/// The largest number of tokens that an answer is believed to have. A larger one is taken for none.
const TOKENS_MAX: u64 = 1_000_000_000_000;

/// The numbers that an answer reported so far. Later ones replace earlier ones: those of a stream are cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reported([u64; FIELDS]);

impl Reported {
    /// No number.
    pub(super) const NONE: Self = Self([ABSENT; FIELDS]);

    pub(super) fn set(&mut self, field: Field, number: u64) {
        if number <= TOKENS_MAX {
            self.0[field as usize] = number;
        }
    }

    /// Takes over what `newer` reports.
    pub(super) fn merge(&mut self, newer: &Self) {
        for (own, newer) in self.0.iter_mut().zip(newer.0) {
            if newer != ABSENT {
                *own = newer;
            }
        }
    }

    fn get(&self, field: Field) -> Option<u64> {
        Some(self.0[field as usize]).filter(|number| *number != ABSENT)
    }

    /// True if the numbers are Gemini's, whose names no other API has.
    pub(super) fn are_of_gemini(&self) -> bool {
        self.get(Field::PromptCount).is_some()
    }

    /// True if the numbers are those of Chat Completions.
    pub(super) fn are_of_chat(&self) -> bool {
        self.get(Field::Prompt).is_some()
    }

    /// The same in one form; None without a known number.
    pub(super) fn tokens(&self) -> Option<Tokens> {
        let number = |field| self.get(field);
        let or_none = |field| number(field).unwrap_or(0);
        let cached = number(Field::Cached)
            .or(number(Field::CacheRead))
            .or(number(Field::CacheHit))
            .or(number(Field::CachedCount))
            .unwrap_or(0);
        let by_length = || {
            let (short, long) = (number(Field::CacheWrite5m), number(Field::CacheWrite1h));
            (short.is_some() || long.is_some()).then(|| short.unwrap_or(0) + long.unwrap_or(0))
        };
        let written = number(Field::Written).or(number(Field::CacheWrite)).or_else(by_length);
        let written = written.unwrap_or(0);
        let output = number(Field::Completion).or(number(Field::Output));
        let output = output.unwrap_or(0);
        // The cached parts of `all` input.
        let split = |all: u64, output| {
            let cache_read = cached.min(all);
            let cache_write = written.min(all - cache_read);
            Tokens { input: all - cache_read - cache_write, output, cache_read, cache_write }
        };
        if let Some(all) = number(Field::Prompt) {
            // xAI, and Gemini as Chat Completions, have reasoning in the total only. Elsewhere, what the total has
            // beyond both may be the cache beside the prompt.
            let beyond = or_none(Field::Total).saturating_sub(all + output);
            let reasoning = if beyond == cached + written { 0 } else { beyond };
            return Some(split(all, output + reasoning));
        }
        if let Some(prompt) = number(Field::PromptCount) {
            let of_gemini = or_none(Field::CandidatesCount) + or_none(Field::ThoughtsCount);
            return Some(split(prompt + or_none(Field::ToolPromptCount), of_gemini));
        }
        match number(Field::Input) {
            Some(all) if number(Field::Cached).is_some() => return Some(split(all, output)),
            Some(input) => {
                return Some(Tokens { input, output, cache_read: cached, cache_write: written });
            }
            None => {}
        }
        let is_known = self.0.iter().any(|number| *number != ABSENT);
        let input = or_none(Field::Total).saturating_sub(output + cached + written);
        is_known.then_some(Tokens { input, output, cache_read: cached, cache_write: written })
    }
}
