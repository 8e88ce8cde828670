//! Speech to text, and text to speech: requests of clients, the formats of those who are asked, and what is told the
//! client.
//!
//! Clients speak OpenAI's format alone. Who is asked may have a format of its own; then its answer is read into a
//! [`Transcript`] and written anew.

pub mod assemblyai;
pub mod container;
pub mod deepgram;
pub mod openai;
pub mod request;
pub mod sound;
pub mod speech;
pub mod transcript;

mod cues;
mod subtitles;
mod write;

pub use container::Container;
pub use request::{Fields, Format, TranscriptionRequest};
pub use transcript::{Segment, Transcript, Word};
pub use write::{NoTimes, write};

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::images;

    const GOOD: [&str; 5] = [
        r#"{"metadata":{"duration":2.5},"results":{"channels":[{"alternatives":[{"transcript":"Hello.","words":[{"word":"hello","punctuated_word":"Hello.","start":0.1,"end":0.5,"confidence":0.9,"speaker":0}]}],"detected_language":"en"}],"utterances":[{"start":0.1,"end":0.9,"confidence":0.85,"transcript":"Hello."}]}}"#,
        r#"{"id":"a","status":"completed","text":"Hi.","language_code":"en","audio_duration":2,"words":[{"text":"Hi.","start":250,"end":650,"confidence":0.9,"speaker":null}],"utterances":null}"#,
        r#"{"task":"transcribe","language":"english","duration":"1.5","text":" Hi","segments":[{"id":0,"start":0.0,"end":1.2,"text":" Hi","avg_logprob":-0.5}],"words":[{"word":"Hi","start":0.0,"end":0.4}],"usage":{"type":"duration","seconds":3}}"#,
        r#"{"created":1,"data":[{"b64_json":"QQ=="},{"url":"https://a.example/b","revised_prompt":"c"}],"usage":{"input_tokens":1,"output_tokens":2,"input_tokens_details":{"image_tokens":0}}}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"a"},{"inlineData":{"mimeType":"image/png","data":"QQ=="}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5,"totalTokenCount":9}}"#,
    ];

    fn formats() -> Vec<TranscriptionRequest> {
        let request = |format: &str| {
            let mut fields = Fields::default();
            fields.add("model", "m").expect("a field");
            fields.add("response_format", format).expect("a field");
            fields.finish(true).expect("a request")
        };
        ["json", "text", "verbose_json", "diarized_json", "srt", "vtt"].map(request).to_vec()
    }

    /// Everything that reads what an upstream sends, and writes what came of it.
    fn read_all(body: &[u8]) {
        for request in formats() {
            let mut found = Vec::new();
            found.extend(deepgram::read(body, &request));
            found.extend(openai::read(body, &request).map(|(transcript, _)| transcript));
            if let Ok(ordered) = assemblyai::read(body, &request)
                && let assemblyai::State::Done(transcript) = ordered.state
            {
                found.push(*transcript);
            }
            for transcript in found {
                if let Ok(written) = write(&transcript, &request)
                    && request.format.is_json()
                {
                    serde_json::from_slice::<serde_json::Value>(&written).expect("what is written is JSON");
                }
            }
            if let Ok((relayed, _)) = openai::relay(&Bytes::copy_from_slice(body), &request, Some(1.0))
                && request.format.is_json()
            {
                serde_json::from_slice::<serde_json::Value>(&relayed).expect("what is relayed is JSON");
            }
        }
        let pictures = images::openai::read(body).ok().into_iter();
        for answer in pictures.chain(images::gemini::read(body).ok().map(|(answer, _)| answer)) {
            serde_json::from_slice::<serde_json::Value>(&answer.write(0)).expect("what is written is JSON");
            let events = answer.write_events(images::Painting::New, 0);
            assert_eq!(events.iter().filter(|byte| **byte == b'\n').count(), answer.pictures.len() * 3);
        }
        drop(images::ImageRequest::read(body));
        drop(speech::SpeechRequest::read(body));
        container::media_type(None, "a", body);
        container::duration(body, body.len() as u64);
        for format in [None, Some("pcm")] {
            assert!(sound::length(format, body).is_none_or(|seconds| seconds > 0.0));
        }
        speech::told_usage(body);
    }

    proptest! {
        #[test]
        fn damaged_answers_harm_nobody(
            which in 0..GOOD.len(),
            damage in vec((any::<Index>(), any::<Index>(), prop::option::of(any::<u8>())), 0..4),
        ) {
            let mut body = GOOD[which].as_bytes().to_vec();
            for (at, length, byte) in damage {
                let at = at.index(body.len().max(1)).min(body.len());
                let end = (at + length.index(9)).min(body.len());
                body.splice(at..end, byte);
            }
            read_all(&body);
        }

        #[test]
        fn noise_harms_nobody(mark in 0..8usize, noise in vec(any::<u8>(), 0..200)) {
            let marks: [&[u8]; 8] = [
                b"",
                b"RIFF\0\0\0\0WAVE",
                b"fLaC\0\0\0\x22",
                b"\0\0\0\x1cftyp",
                b"\xff\xfb\x90\x64",
                b"\xff\xf1\x50\x80",
                b"OggS\0\x02\0\0\0\0\0\0\0\0OpusHead",
                b"data: {\"type\":\"speech.audio.done\",\"usage\":",
            ];
            read_all(&[marks[mark], &noise].concat());
        }
    }
}
