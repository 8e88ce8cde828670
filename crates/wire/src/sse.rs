//! Frames of server-sent events.

/// One frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The event name, if the frame has one.
    pub event: Option<&'a str>,
    /// The data, lines joined by LF.
    pub data: &'a [u8],
}
