//! Reading a stream the way a client would. Shares nothing with the gateway's own framer.

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its data, lines joined by LF.
    pub data: String,
}

/// Collects events from bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct SseReader {
    buffer: Vec<u8>,
}

impl SseReader {
    /// A reader that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes and gives the events they complete; comments and events without data are not shown.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some((end, next)) = blank_line(&self.buffer) {
            let block: Vec<u8> = self.buffer.drain(..next).collect();
            events.extend(event(&block[..end]));
        }
        events
    }

    /// What has not been completed by a blank line.
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }
}

/// All events of a whole stream. Panics when it does not end with a blank line.
pub fn events(stream: &[u8]) -> Vec<Event> {
    let mut reader = SseReader::new();
    let events = reader.push(stream);
    let rest = String::from_utf8_lossy(reader.rest()).into_owned();
    assert!(rest.is_empty(), "the stream ends within an event: {rest:?}");
    events
}

/// The data of all events of a whole stream.
pub fn data(stream: &[u8]) -> Vec<String> {
    events(stream).into_iter().map(|event| event.data).collect()
}

/// Where the first block ends, and where the next one begins.
fn blank_line(buffer: &[u8]) -> Option<(usize, usize)> {
    ["\n\n", "\r\n\r\n"]
        .iter()
        .filter_map(|mark| {
            let at = buffer.windows(mark.len()).position(|window| window == mark.as_bytes())?;
            Some((at, at + mark.len()))
        })
        .min()
}

fn event(block: &[u8]) -> Option<Event> {
    let text = std::str::from_utf8(block).unwrap_or_else(|error| panic!("an event is not UTF-8: {error}"));
    let mut event = Event::default();
    let mut data = Vec::new();
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.name = Some(value.to_owned()),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whatever_the_cuts() {
        let stream = b": hi\n\nevent: a\ndata: 1\ndata:2\n\ndata: [DONE]\r\n\r\n";
        let expected = [
            Event { name: Some("a".to_owned()), data: "1\n2".to_owned() },
            Event { name: None, data: "[DONE]".to_owned() },
        ];
        assert_eq!(events(stream), expected);
        let mut reader = SseReader::new();
        let found: Vec<Event> = stream.chunks(1).flat_map(|byte| reader.push(byte)).collect();
        assert_eq!(found, expected);
        assert_eq!(data(stream), ["1\n2", "[DONE]"]);
    }

    #[test]
    #[should_panic(expected = "within an event")]
    fn an_unfinished_stream_is_noticed() {
        events(b"data: 1\n");
    }
}
