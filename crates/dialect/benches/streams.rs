//! What a chunk of a stream costs: `cargo bench -p omniroute-dialect`.

use bytes::BytesMut;
use divan::{Bencher, counter::ItemsCount};
use omniroute_dialect::{
    Dialect, Echo,
    anthropic::Anthropic,
    openai::OpenAi,
    shape::Shape,
    stream::{StreamPipe, Transcoder},
};
use omniroute_wire::{envelope, sse::SseFramer};

/// Counts allocations beside the time: a chunk of text is to need none.
#[global_allocator]
static ALLOC: divan::AllocProfiler = divan::AllocProfiler::system();

const CHUNKS: usize = 100;

fn main() {
    divan::main();
}

fn chat_stream() -> Vec<u8> {
    let mut stream = String::new();
    for n in 0..CHUNKS {
        stream.push_str(&format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef01234567\",\"object\":\"chat.completion.chunk\",\"created\":1762000000,\
             \"model\":\"upstream-model\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{n}\"}},\
             \"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
        ));
    }
    stream.push_str("data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    stream.into_bytes()
}

fn messages_stream() -> Vec<u8> {
    let mut stream = String::from(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\
         \"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n\
         event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
         \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    );
    for n in 0..CHUNKS {
        stream.push_str(&format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
             \"delta\":{{\"type\":\"text_delta\",\"text\":\" word{n}\"}}}}\n\n"
        ));
    }
    stream.push_str(
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
         event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
         \"usage\":{\"output_tokens\":9}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    stream.into_bytes()
}

fn echo(model: &str) -> Echo {
    Echo { model: model.into(), request_id: "r".into(), ..Echo::default() }
}

fn run(mut pipe: impl StreamPipe, stream: &[u8], out: &mut BytesMut) {
    out.clear();
    for piece in stream.chunks(1400) {
        pipe.push(piece, out).expect("a valid stream");
    }
    pipe.finish(out).expect("a valid stream");
    assert!(pipe.watch().complete);
}

struct Boxed(Box<dyn StreamPipe>);

impl StreamPipe for Boxed {
    fn push(
        &mut self,
        bytes: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), omniroute_dialect::stream::StreamError> {
        self.0.push(bytes, out)
    }
    fn finish(&mut self, out: &mut BytesMut) -> Result<(), omniroute_dialect::stream::StreamError> {
        self.0.finish(out)
    }
    fn fail(&mut self, error: &omniroute_dialect::ir::PublicError, out: &mut BytesMut) {
        self.0.fail(error, out);
    }
    fn watch(&self) -> &omniroute_dialect::stream::StreamWatch {
        self.0.watch()
    }
}

#[divan::bench]
fn framer(bencher: Bencher<'_, '_>) {
    let stream = chat_stream();
    bencher.counter(ItemsCount::new(CHUNKS)).bench_local(|| {
        let mut framer = SseFramer::default();
        let mut bytes = 0;
        for piece in stream.chunks(1400) {
            framer.push(piece);
            while let Some(Ok(found)) = framer.next_frame() {
                bytes += found.frame.data.len();
            }
        }
        bytes
    });
}

#[divan::bench(args = ["upstream-model", "asked/model"])]
fn chat_relay(bencher: Bencher<'_, '_>, model: &str) {
    let (stream, mut out) = (chat_stream(), BytesMut::new());
    bencher
        .counter(ItemsCount::new(CHUNKS))
        .bench_local(|| run(Boxed(OpenAi.stream_relay(echo(model))), &stream, &mut out));
}

#[divan::bench]
fn messages_relay(bencher: Bencher<'_, '_>) {
    let (stream, mut out) = (messages_stream(), BytesMut::new());
    bencher
        .counter(ItemsCount::new(CHUNKS))
        .bench_local(|| run(Boxed(Anthropic.stream_relay(echo("asked/model"))), &stream, &mut out));
}

#[divan::bench]
fn chat_to_messages(bencher: Bencher<'_, '_>) {
    let (stream, mut out) = (chat_stream(), BytesMut::new());
    bencher.counter(ItemsCount::new(CHUNKS)).bench_local(|| {
        run(
            Transcoder::new(&OpenAi, &Anthropic, echo("asked/model"), Shape::none(&OpenAi)),
            &stream,
            &mut out,
        );
    });
}

#[divan::bench]
fn messages_to_chat(bencher: Bencher<'_, '_>) {
    let (stream, mut out) = (messages_stream(), BytesMut::new());
    bencher.counter(ItemsCount::new(CHUNKS)).bench_local(|| {
        run(
            Transcoder::new(&Anthropic, &OpenAi, echo("asked/model"), Shape::none(&Anthropic)),
            &stream,
            &mut out,
        );
    });
}

#[divan::bench]
fn envelope_of_200_kb(bencher: Bencher<'_, '_>) {
    let text = "Lorem ipsum dolor sit amet, \\\"consectetur\\\" adipiscing elit.\\n".repeat(3200);
    let body = format!(
        "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}],\"stream\":true}}"
    );
    bencher.counter(divan::counter::BytesCount::new(body.len())).bench_local(|| {
        let mut members = 0;
        envelope::scan(body.as_bytes(), &mut |_| members += 1).expect("a valid body");
        members
    });
}
