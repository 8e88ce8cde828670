//! What could not be carried over unchanged. A value, so that nothing is dropped in silence.

use std::borrow::Cow;

/// One departure from the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// JSON path in the client's request (`top_k`, `messages[2].role`).
    pub path: Cow<'static, str>,
    /// What was done.
    pub action: LossAction,
    /// Recorded and counted, but harmless: not named in the header and no reason for a refusal in strict mode.
    pub silent: bool,
}

/// A loss that the client is told of.
pub(crate) fn loss(path: impl Into<Cow<'static, str>>, action: LossAction) -> Loss {
    Loss { path: path.into(), action, silent: false }
}

/// A loss that is only recorded.
pub(crate) fn quiet(path: impl Into<Cow<'static, str>>, action: LossAction) -> Loss {
    Loss { path: path.into(), action, silent: true }
}

/// What was done about something that the target cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossAction {
    /// Kept in another form.
    Mapped,
    /// A number or a length was limited.
    Clamped,
    /// Left out.
    Dropped,
    /// Added, because the target demands it.
    Invented,
}

impl LossAction {
    /// The word used in logs, headers and API fields.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mapped => "mapped",
            Self::Clamped => "clamped",
            Self::Dropped => "dropped",
            Self::Invented => "invented",
        }
    }
}
