//! A text as each dialect streams it, and what takes it from one dialect to another: for counting what an event costs.

use bytes::BytesMut;
use omniroute_dialect::registry::DIALECTS;
use omniroute_dialect::shape::Shape;
use omniroute_dialect::stream::{StreamPipe, Transcoder};
use omniroute_dialect::{Dialect, DialectId, Echo};

/// A stream under way: its text has begun.
pub(crate) struct Telling {
    upstream: DialectId,
    pipe: Box<dyn StreamPipe>,
    out: BytesMut,
}

impl Telling {
    /// The upstream's stream for a client; passed through if both speak the same dialect.
    pub(crate) fn begin(upstream: &'static dyn Dialect, client: &'static dyn Dialect) -> Self {
        // The client knows the model by another name, as is usual in a gateway.
        let echo = Echo { model: "up/m".into(), request_id: "req_1".into(), ..Echo::default() };
        let pipe: Box<dyn StreamPipe> = if upstream.id() == client.id() {
            client.stream_relay(echo)
        } else {
            Box::new(Transcoder::new(upstream, client, echo, Shape::none(upstream)))
        };
        let mut telling = Self { upstream: upstream.id(), pipe, out: BytesMut::with_capacity(16 << 10) };
        telling.read(head(upstream.id()));
        telling
    }

    /// The next event's bytes as the upstream sends them.
    pub(crate) fn delta(&self, n: usize) -> String {
        delta(self.upstream, n)
    }

    /// Reads bytes of the upstream and says how many the client gets for them.
    pub(crate) fn read(&mut self, bytes: &str) -> usize {
        self.out.clear();
        self.pipe.push(bytes.as_bytes(), &mut self.out).expect("a valid stream");
        self.out.len()
    }
}

/// Each upstream with each client.
pub(crate) fn pairs() -> impl Iterator<Item = (&'static dyn Dialect, &'static dyn Dialect)> {
    DIALECTS.iter().flat_map(|upstream| DIALECTS.iter().map(|client| (*upstream, *client)))
}

/// What comes before the text.
fn head(dialect: DialectId) -> &'static str {
    match dialect.as_str() {
        "openai" => {
            "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1762000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
        }
        "responses" => {
            "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1762000000,\"status\":\"in_progress\",\"model\":\"m\",\"output\":[]}}\n\nevent: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"sequence_number\":1,\"output_index\":0,\"item\":{\"id\":\"msg_1\",\"type\":\"message\",\"status\":\"in_progress\",\"role\":\"assistant\",\"content\":[]}}\n\nevent: response.content_part.added\ndata: {\"type\":\"response.content_part.added\",\"sequence_number\":2,\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"part\":{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"\"}}\n\n"
        }
        "anthropic" => {
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
        }
        // These two begin with the text.
        "gemini" | "ollama" => "",
        other => panic!("how {other} streams a text is not told here"),
    }
}

/// A piece of text, each as long as any other.
fn delta(dialect: DialectId, n: usize) -> String {
    match dialect.as_str() {
        "openai" => format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1762000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{n:04}\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
        ),
        "responses" => format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":{},\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"delta\":\" word{n:04}\",\"logprobs\":[]}}\n\n",
            n + 3
        ),
        "anthropic" => format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word{n:04}\"}}}}\n\n"
        ),
        "gemini" => format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\" word{n:04}\"}}],\"role\":\"model\"}},\"index\":0}}],\"usageMetadata\":{{\"promptTokenCount\":5,\"totalTokenCount\":5}},\"modelVersion\":\"m\",\"responseId\":\"r1\"}}\r\n\r\n"
        ),
        "ollama" => format!(
            "{{\"model\":\"m\",\"created_at\":\"2025-11-01T12:26:40.000000000Z\",\"message\":{{\"role\":\"assistant\",\"content\":\" word{n:04}\"}},\"done\":false}}\n"
        ),
        other => panic!("how {other} streams a text is not told here"),
    }
}
