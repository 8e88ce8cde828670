//! What is counted beside tokens.

/// What is billed beside tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Units {
    /// Produced images.
    pub images: u64,
    /// Milliseconds of audio or video sent.
    pub millis_in: u64,
    /// Milliseconds of audio or video produced.
    pub millis_out: u64,
    /// Characters of text to be spoken.
    pub characters: u64,
    /// Queries.
    pub queries: u64,
    /// Requests.
    pub requests: u64,
}

impl Units {
    /// One request and nothing else.
    pub const REQUEST: Self =
        Self { images: 0, millis_in: 0, millis_out: 0, characters: 0, queries: 0, requests: 1 };

    /// Adds what another call used.
    pub fn add(&mut self, other: &Self) {
        let Self { images, millis_in, millis_out, characters, queries, requests } = other;
        self.images = self.images.saturating_add(*images);
        self.millis_in = self.millis_in.saturating_add(*millis_in);
        self.millis_out = self.millis_out.saturating_add(*millis_out);
        self.characters = self.characters.saturating_add(*characters);
        self.queries = self.queries.saturating_add(*queries);
        self.requests = self.requests.saturating_add(*requests);
    }

    /// Everything but requests by its name in the API, as far as there is any of it.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("images", self.images),
            ("millisIn", self.millis_in),
            ("millisOut", self.millis_out),
            ("characters", self.characters),
            ("queries", self.queries),
        ];
        all.into_iter().filter(|(_, amount)| *amount > 0)
    }
}
