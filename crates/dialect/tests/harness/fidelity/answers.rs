//! What becomes of an answer, whole and streamed.

use bytes::{Bytes, BytesMut};
use omniroute_dialect::{
    Caps, Dialect,
    ir::{ChatRequest, ChatResponse, Loss, LossAction},
    shape::{Seal, Shape},
    stream::{
        EventSink, StreamCollector, StreamEncoder, StreamError, StreamEvent, StreamPipe as _, Transcoder,
        replay,
    },
};
use serde_json::Value;

use super::{
    facts,
    pattern::{holds, only_in},
    verdict::{Seen, Verdict},
    words::Words,
};
use crate::support::{dialect, echo, run};

/// One upstream's answer on its way to one client.
struct Way<'a> {
    from: &'static dyn Dialect,
    to: &'static dyn Dialect,
    client: &'a Words,
    feature: &'a str,
    /// An answer with nothing special.
    usual: ChatResponse,
}

/// What becomes of a feature in a whole answer and in a stream; `None` where no stream was tried.
pub(super) fn verdicts(
    upstream: &Words,
    client: &Words,
    feature: &str,
    faults: &mut Vec<String>,
) -> (Verdict, Option<Verdict>) {
    let place = format!("answer {feature}: {} -> {}", upstream.dialect, client.dialect);
    let word = upstream.answers.get(feature);
    let Some((word, body)) = word.and_then(|word| upstream.answer(word).map(|body| (word, body))) else {
        return (Verdict::Unsaid, None);
    };
    let (from, to) = (dialect(&upstream.dialect), dialect(&client.dialect));
    let usual = from.decode_response(&text(&upstream.usual_answer(word))).unwrap();
    let heard = from.decode_response(&text(&body)).unwrap_or_else(|error| panic!("{place}: {error:?}"));
    let asked = facts::of_answer(feature, &heard);
    let way = Way { from, to, client, feature, usual };
    if !matches!(feature, "text" | "tokens" | "stop" | "id")
        && asked.is_some()
        && asked == facts::of_answer(feature, &way.usual)
    {
        faults.push(format!("{place}: the probe says nothing: {asked:?}"));
    }
    let mut judged = |seen: Result<Verdict, String>| {
        seen.unwrap_or_else(|fault| {
            faults.push(format!("{place}: {fault}"));
            Verdict::NoPlace
        })
    };
    let whole = way.whole(&body, &upstream.usual_answer(word), &heard, asked.as_ref());
    let whole = judged(whole);
    let streamed = asked.map(|asked| judged(way.streamed(&heard, &asked)));
    (whole, streamed)
}

impl Way<'_> {
    /// A whole answer.
    fn whole(
        &self,
        body: &Value,
        usual_body: &Value,
        heard: &ChatResponse,
        asked: Option<&Value>,
    ) -> Result<Verdict, String> {
        if self.from.id() == self.to.id() {
            let relayed = self.to.relay_response(&text(body), &echo()).unwrap().body.to_bytes();
            let relayed: Value = serde_json::from_slice(&relayed).unwrap();
            let models = ["model", "modelVersion"];
            let members =
                body.as_object().unwrap().iter().filter(|(name, _)| !models.contains(&name.as_str()));
            let changed: Vec<_> =
                members.filter(|(name, value)| relayed.get(name) != Some(value)).map(|one| one.0).collect();
            return if changed.is_empty() { Ok(Verdict::Kept) } else { Err(format!("changed {changed:?}")) };
        }
        let (said, losses) = self.write(heard);
        let verdict = self.judge(&said, asked, &losses)?;
        if verdict == Verdict::NoPlace {
            self.is_gone(body, usual_body, &said)?;
        }
        Ok(verdict)
    }

    /// That nothing of the upstream's words is left, where there is said to be no place for them.
    fn is_gone(&self, body: &Value, usual: &Value, said: &Value) -> Result<(), String> {
        let asked = only_in(body, usual);
        let left: Vec<String> = only_in(said, &self.encode(&self.usual).0)
            .into_iter()
            .filter(|leaf| asked.contains(leaf))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("no place, and yet there is {left:?} in {said}")) }
    }

    /// The answer for the client, and the losses that an answer with nothing special has not.
    fn write(&self, answer: &ChatResponse) -> (Value, Vec<Loss>) {
        let (body, mut losses) = self.encode(answer);
        let (_, usual) = self.encode(&self.usual);
        losses.retain(|loss| !usual.contains(loss));
        (body, losses)
    }

    fn encode(&self, answer: &ChatResponse) -> (Value, Vec<Loss>) {
        let mut answer = answer.clone();
        shape(self.from, self.to).response(&mut answer);
        let encoded = self.to.encode_response(&answer, &echo());
        (serde_json::from_slice(&encoded.body).unwrap(), encoded.losses)
    }

    fn judge(&self, said: &Value, asked: Option<&Value>, losses: &[Loss]) -> Result<Verdict, String> {
        let read = self.to.decode_response(&text(said)).map_err(|error| format!("{error:?}: {said}"))?;
        let found = facts::of_answer(self.feature, &read);
        let word = self.client.answers.get(self.feature);
        let own = word.is_some_and(|word| holds(said, &word.own));
        let other = word.is_some_and(|word| holds(said, &word.other));
        let same = if asked.is_some() { found.as_ref() == asked } else { own };
        let before = self.to.decode_response(&text(&self.encode(&self.usual).0)).unwrap();
        let gone = !own && found == facts::of_answer(self.feature, &before);
        let told: Vec<&Loss> = losses.iter().collect();
        let seen = Seen { losses: &told, same, proven: own || other, gone };
        // What the client's dialect has no word for has no place in it.
        if losses.is_empty() && !same && !own && !other && !self.client.can_answer(self.feature) {
            return Ok(Verdict::NoPlace);
        }
        seen.judge()
            .map_err(|fault| format!("{fault}; asked {asked:?}, found {found:?}; losses {losses:?}; {said}"))
    }

    /// The same answer as a stream, which the writer of the upstream's dialect makes of it.
    fn streamed(&self, heard: &ChatResponse, asked: &Value) -> Result<Verdict, String> {
        let input = played(self.from, heard);
        let back = collect(self.from, &input);
        if facts::of_answer(self.feature, &back).as_ref() != Some(asked) {
            return Err(format!("the writer of the upstream's dialect has it not in streams: {input}"));
        }
        let (whole, losses) = self.write(heard);
        if self.from.id() == self.to.id() {
            let (out, _) = run(self.to.stream_relay(echo()), [input.as_bytes()]);
            let same = facts::of_answer(self.feature, &collect(self.to, &out)).as_ref() == Some(asked);
            return if same { Ok(Verdict::Kept) } else { Err(format!("another in the stream: {out}")) };
        }
        let (out, mut lost) = passed(self.from, self.to, &input);
        let usual = passed(self.from, self.to, &played(self.from, &self.usual)).1;
        lost.retain(|loss| !usual.contains(loss));
        let got = collect(self.to, &out);
        let same_as_whole = self.to.decode_response(&text(&whole)).is_ok_and(|whole| {
            facts::of_answer(self.feature, &whole) == facts::of_answer(self.feature, &got)
        });
        let again = self.to.encode_response(&got, &echo());
        let again: Value = serde_json::from_slice(&again.body).unwrap();
        if !same_as_whole {
            return self.judge(&again, Some(asked), &lost);
        }
        // Their places may differ: some writers tell all reasoning at the end of a stream.
        let kinds = |losses: &[Loss]| -> Vec<_> {
            let kind = |loss: &Loss| (loss.path.replace(char::is_numeric, ""), loss.action, loss.silent);
            losses.iter().map(kind).collect()
        };
        if kinds(&lost) != kinds(&losses) {
            return Err(format!("as a whole it loses {losses:?}, as a stream {lost:?}: {out}"));
        }
        let verdict = self.judge(&whole, Some(asked), &lost)?;
        let is_there = verdict == Verdict::Kept
            || matches!(verdict, Verdict::Changed { action: LossAction::Mapped, .. });
        let word = self.client.answers.get(self.feature);
        let proves =
            |body: &Value| word.is_some_and(|word| holds(body, &word.own) || holds(body, &word.other));
        let is_same = facts::of_answer(self.feature, &got).as_ref() == Some(asked);
        if is_there && !is_same && !proves(&again) && !proves(&frames(&out)) {
            return Err(format!("{verdict:?} when whole, and not found in the stream: {out}"));
        }
        Ok(verdict)
    }
}

/// The stream that an upstream's dialect makes of an answer.
pub(super) fn played(from: &dyn Dialect, answer: &ChatResponse) -> String {
    struct Player {
        encoder: Box<dyn StreamEncoder>,
        out: BytesMut,
    }
    impl EventSink for Player {
        fn event(&mut self, event: StreamEvent<'_>) -> Result<(), StreamError> {
            self.encoder.event(event, &mut self.out)
        }
    }
    let mut player = Player { encoder: from.stream_encoder(echo()), out: BytesMut::new() };
    replay(answer, &mut player).unwrap();
    String::from_utf8(player.out.to_vec()).unwrap()
}

/// What a client gets of an upstream's stream, and what was recorded of it.
pub(super) fn passed(
    from: &'static dyn Dialect,
    to: &'static dyn Dialect,
    stream: &str,
) -> (String, Vec<Loss>) {
    let mut pipe = Transcoder::new(from, to, echo(), shape(from, to));
    let mut out = BytesMut::new();
    pipe.push(stream.as_bytes(), &mut out).unwrap();
    pipe.finish(&mut out).unwrap();
    (String::from_utf8(out.to_vec()).unwrap(), pipe.take_losses())
}

fn shape(from: &dyn Dialect, to: &dyn Dialect) -> Shape {
    let request = ChatRequest::default();
    Shape::of(&request, to, from, &Caps::permissive(), Some(&Seal::new([7; 32]))).1
}

/// A stream as a whole answer.
pub(super) fn collect(dialect: &'static dyn Dialect, stream: &str) -> ChatResponse {
    let mut collector = StreamCollector::new(dialect);
    collector.push(stream.as_bytes()).unwrap();
    collector.finish().unwrap_or_else(|error| panic!("{}: {error:?}: {stream}", dialect.id()))
}

/// The documents of a stream of any dialect.
pub(super) fn frames(stream: &str) -> Value {
    let lines = stream.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
}

fn text(body: &Value) -> Bytes {
    Bytes::from(body.to_string())
}
