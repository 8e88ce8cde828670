//! Passing on a whole answer.

use bytes::Bytes;
use omniroute_wire::{
    envelope::{self, as_str},
    splice::Splice,
};

use super::quoted;
use crate::{
    DecodeError, Echo, Relayed, error_text,
    ir::{FinishReason, Tier},
    json_in::last_wins,
    openai::{
        response,
        wire::{self, Choices, text_of},
    },
};

/// Prepares a whole answer.
pub(in crate::openai) fn whole(body: &Bytes, echo: &Echo) -> Result<Relayed, DecodeError> {
    if response::is_stream(body) {
        let answer = response::collect(body)?;
        let meaningful = answer.is_meaningful();
        let encoded = response::encode(&answer, echo).body;
        return Ok(Relayed {
            body: Splice::new(encoded),
            usage: answer.usage,
            finish: answer.finish,
            meaningful,
            error: None,
        });
    }
    let asked = quoted(&echo.model);
    let mut splice = Splice::new(body.clone());
    let (mut usage, mut choices, mut tier) = (None, None, None);
    let mut disguise = error_text::Disguise::default();
    let scanned = envelope::scan(body, &mut |member| {
        disguise.note(&member);
        match &*member.key {
            "model" if member.raw.as_bytes() != asked => splice.replace(member.span, asked.clone()),
            "usage" => usage = Some(member.raw),
            "choices" => choices = Some(member.raw),
            "service_tier" => tier = as_str(member.raw),
            _ => {}
        }
    });
    if scanned.is_err() {
        // Says in words what it is.
        response::decode(body)?;
        return Err(response::unreadable("it is not a JSON object"));
    }
    let mut usage = usage.and_then(|raw| serde_json::from_str(raw).ok()).map(wire::usage).unwrap_or_default();
    usage.tier = tier.and_then(|word| Tier::of_answer(&word));
    let mut failure = None;
    let mut relayed = Relayed {
        body: splice,
        usage,
        finish: None,
        meaningful: usage.output_total.is_some_and(|tokens| tokens > 0),
        error: disguise.error(body),
    };
    let repaired;
    let choices = match choices.map(serde_json::from_str::<Choices<'_>>) {
        Some(Err(_)) => {
            repaired = choices.map(last_wins).unwrap_or_default();
            serde_json::from_str(&repaired).ok()
        }
        other => other.and_then(Result::ok),
    };
    if let Some(choice) = choices.and_then(|choices| choices.first) {
        let message = choice.message.or(choice.delta).unwrap_or_default();
        relayed.meaningful |= message.is_meaningful();
        let called =
            message.tool_calls.is_some_and(|calls| !calls.0.is_empty()) || message.function_call.is_some();
        let word = choice.finish_reason.and_then(text_of);
        failure = word.as_deref().and_then(wire::failed_end);
        relayed.finish = word.map(|word| wire::finish_reason(&word, called));
        // Withheld is not nothing.
        relayed.meaningful |= relayed.finish == Some(FinishReason::ContentFilter);
    }
    relayed.error = relayed.error.or(failure);
    Ok(relayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Echo {
        Echo { model: "asked".into(), request_id: "r".into(), created: 1, ..Echo::default() }
    }

    #[test]
    fn whole_answers_are_edited_and_judged() {
        let body = Bytes::from_static(
            br#"{"id":"c","model":"up","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
        );
        let relayed = whole(&body, &echo()).unwrap();
        assert!(relayed.body.to_bytes().starts_with(br#"{"id":"c","model":"asked","choices""#));
        assert!(relayed.meaningful && relayed.error.is_none());
        assert_eq!((relayed.finish, relayed.usage.input_uncached), (Some(FinishReason::Stop), Some(3)));
        assert_eq!(relayed.usage.tier, None);
        let flexible = Bytes::from_static(
            br#"{"service_tier":"flex","usage":{"prompt_tokens":3},"choices":[{"message":{}}]}"#,
        );
        assert_eq!(whole(&flexible, &echo()).unwrap().usage.tier, Some(Tier::Flex));

        let same = Echo { model: "up".into(), ..echo() };
        assert!(whole(&body, &same).unwrap().body.is_untouched());
        let empty = Bytes::from_static(br#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}"#);
        assert!(!whole(&empty, &echo()).unwrap().meaningful);
        let error = Bytes::from_static(br#"{"error":{"message":"no","code":"x"}}"#);
        assert_eq!(whole(&error, &echo()).unwrap().error.unwrap().code.as_deref(), Some("x"));
        assert!(whole(&Bytes::from_static(b"<html></html>"), &echo()).is_err());
        assert!(whole(&Bytes::from_static(b""), &echo()).is_err());
    }
}
