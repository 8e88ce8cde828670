//! Calls whose answer is material for the gateway and does not go to the client: the branches of a fusion, the steps of a
//! pipeline before the last. And the requests that are made of such answers.

use bytes::BytesMut;
use omniroute_dialect::ir::{Block, BlockKind, ChatRequest, ChatResponse, ErrorKind, Role, ToolChoice, Turn};
use omniroute_dialect::stream::{EventSink, StreamEncoder, StreamError, StreamEvent, replay};
use omniroute_provider::Failure;
use omniroute_wire::splice::Pieces;

use super::{Attempted, Fault};
use crate::ctx::RequestCtx;
use crate::error::GatewayError;

/// A request in the place of the client's own. It is sent from its canonical form, whatever the upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// Its answer is the client's.
    Reply,
    /// Its answer is [material](RequestCtx::material).
    Material,
    /// So is this one's, and nobody waits for it.
    Aside,
}

impl Rewrite {
    /// Whether the answer is for the gateway itself.
    pub(crate) const fn is_material(self) -> bool {
        matches!(self, Self::Material | Self::Aside)
    }
}

impl RequestCtx {
    /// A branch that sends `request` and keeps the whole answer for us.
    pub(crate) fn inner(&mut self, mut request: Box<ChatRequest>, added: usize) -> Box<Self> {
        request.stream = false;
        request.include_usage = false;
        // Of several alternatives one is read, and nobody will name what the vendor would keep.
        request.sampling.n = None;
        request.store = request.store.and(Some(false));
        let mut branch = self.branch();
        if let Some(envelope) = &mut branch.envelope {
            envelope.stream = false;
            envelope.kept = None;
        }
        branch.replace(request, added, Rewrite::Material);
        branch
    }

    /// Answers `request` in the place of the client's own.
    pub(crate) fn rewrite(&mut self, request: Box<ChatRequest>, added: usize) {
        self.replace(request, added, Rewrite::Reply);
    }

    /// Sends `request`, and keeps the whole answer for us.
    pub(crate) fn sum_up(&mut self, request: Box<ChatRequest>, length: usize) {
        self.replace(request, length, Rewrite::Aside);
    }

    fn replace(&mut self, request: Box<ChatRequest>, added: usize, as_what: Rewrite) {
        self.canonical = Some(request);
        self.rewrite = Some(as_what);
        self.added_bytes = added;
    }
}

/// A whole answer as the client wants it: in one piece, or as the stream that it would have been.
pub(super) fn told(ctx: &mut RequestCtx, answer: &ChatResponse) -> Result<Attempted, GatewayError> {
    let client = ctx.dialect();
    let mut echo = ctx.echo();
    echo.answered_after = Some(ctx.since_arrival());
    ctx.outcome.first_event = Some(ctx.engine.clock.instant());
    let mut pieces = Pieces::new();
    if !ctx.envelope()?.stream {
        let encoded = client.encode_response(answer, &echo);
        ctx.note_losses(encoded.losses);
        pieces.push(encoded.body);
        return Ok(Attempted::Whole(Box::new(pieces)));
    }
    let mut writer = Writer { encoder: client.stream_encoder(echo), out: BytesMut::new() };
    writer.encoder.time_passed(ctx.since_arrival());
    replay(answer, &mut writer).map_err(|error| {
        GatewayError::new(
            ErrorKind::Internal,
            "internal_server_error",
            format!("the answer was not written: {error}"),
        )
    })?;
    ctx.note_losses(writer.encoder.take_losses());
    pieces.push(writer.out.freeze());
    Ok(Attempted::Whole(Box::new(pieces)))
}

struct Writer {
    encoder: Box<dyn StreamEncoder>,
    out: BytesMut,
}

impl EventSink for Writer {
    fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
        self.encoder.event(event, &mut self.out)
    }
}

/// Holds a whole answer to what the combo asks of one. An answer that calls tools is for the client to go on with.
pub(super) fn validate(ctx: &RequestCtx, answer: &ChatResponse) -> Result<(), Fault> {
    let Some(validation) = &ctx.validation else { return Ok(()) };
    if answer.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolCall(_))) {
        return Ok(());
    }
    match validation.objection(&text_of(answer)) {
        Some(objection) => Err(Failure::invalid_response(&objection).into()),
        None => Ok(()),
    }
}

/// The texts of an answer, one after the other.
pub(crate) fn text_of(answer: &ChatResponse) -> String {
    texts(&answer.blocks)
}

fn texts(blocks: &[Block]) -> String {
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    texts.join("\n")
}

/// The text of the last message, if it is the user's own and no answer to a tool call.
pub(super) fn last_words(request: &ChatRequest) -> Option<String> {
    let last = request.turns.last().filter(|turn| turn.role == Role::User)?;
    let answers_tool = last.blocks.iter().any(|block| matches!(block.kind, BlockKind::ToolResult(_)));
    (!answers_tool).then(|| texts(&last.blocks))
}

/// The request with another last message.
pub(super) fn with_last_words(mut request: Box<ChatRequest>, text: String) -> Box<ChatRequest> {
    if let Some(last) = request.turns.last_mut() {
        last.blocks = vec![Block::from(BlockKind::Text(text))];
    }
    request
}

/// The request with something said behind it.
pub(super) fn with_more(mut request: Box<ChatRequest>, text: String) -> Box<ChatRequest> {
    let block = Block::from(BlockKind::Text(text));
    match request.turns.last_mut().filter(|turn| turn.role == Role::User) {
        Some(last) => last.blocks.push(block),
        None => request.turns.push(Turn {
            role: Role::User,
            blocks: vec![block],
            name: None,
            path: "fusion".to_owned(),
        }),
    }
    request
}

/// The request without the right to call tools; they stay declared, since the history may have calls of them.
pub(super) fn without_calls(mut request: Box<ChatRequest>) -> Box<ChatRequest> {
    if !request.tools.is_empty() {
        request.tool_choice = Some(ToolChoice::None);
    }
    request
}

#[cfg(test)]
mod tests {
    use omniroute_dialect::ir::ToolResult;

    use super::*;

    fn said(role: Role, blocks: Vec<BlockKind>) -> Turn {
        Turn { role, blocks: blocks.into_iter().map(Block::from).collect(), name: None, path: String::new() }
    }

    fn text(text: &str) -> BlockKind {
        BlockKind::Text(text.to_owned())
    }

    #[test]
    fn the_last_words_are_the_users_own() {
        let result =
            BlockKind::ToolResult(ToolResult { call_id: "c".into(), blocks: Vec::new(), is_error: false });
        for (turns, expected) in [
            (vec![said(Role::User, vec![text("a"), text("b")])], Some("a\nb")),
            (vec![said(Role::User, vec![text("a")]), said(Role::Assistant, vec![text("b")])], None),
            (vec![said(Role::User, vec![result, text("a")])], None),
            (vec![], None),
        ] {
            let request = ChatRequest { turns, ..ChatRequest::default() };
            assert_eq!(last_words(&request).as_deref(), expected);
        }
    }

    #[test]
    fn what_is_added_goes_to_the_user() {
        let asked = ChatRequest { turns: vec![said(Role::User, vec![text("a")])], ..ChatRequest::default() };
        let more = with_more(Box::new(asked.clone()), "b".into());
        assert_eq!((more.turns.len(), texts(&more.turns[0].blocks).as_str()), (1, "a\nb"));
        let begun = ChatRequest { turns: vec![said(Role::Assistant, vec![text("a")])], ..asked };
        let more = with_more(Box::new(begun), "b".into());
        assert_eq!((more.turns.len(), more.turns[1].role), (2, Role::User));
    }
}
