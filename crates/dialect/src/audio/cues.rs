//! Cues of subtitles: short enough to be read, in time with what is said.

use super::transcript::{Transcript, append, is_unspaced};

/// Most characters of one cue.
const MAX_CHARS: usize = 42;
/// Longest time that one cue stands.
const MAX_SECONDS: f64 = 7.0;
/// Longest pause that a cue stands over.
const PAUSE: f64 = 1.5;

/// A text for a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cue {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) text: String,
}

/// The cues of a transcript; none where no times are known. Nobody shares a cue with another speaker.
pub(super) fn of(transcript: &Transcript) -> Vec<Cue> {
    let mut cues: Vec<Cue> = if transcript.words.is_empty() {
        let segments = transcript.segments.iter();
        segments.flat_map(|segment| split(segment.start, segment.end, &segment.text)).collect()
    } else {
        let turns = transcript.words.chunk_by(|one, next| one.speaker == next.speaker);
        turns
            .flat_map(|turn| gather(turn.iter().flat_map(|word| split(word.start, word.end, &word.text))))
            .collect()
    };
    in_order(&mut cues);
    cues
}

/// Puts pieces that follow each other together, as far as they are short enough.
fn gather(pieces: impl Iterator<Item = Cue>) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    for piece in pieces {
        if let Some(cue) = cues.last_mut() {
            let mut together = cue.text.clone();
            append(&mut together, &piece.text);
            let is_close = piece.start - cue.end <= PAUSE;
            if is_close && together.chars().count() <= MAX_CHARS && piece.end - cue.start <= MAX_SECONDS {
                cue.text = together;
                cue.end = piece.end.max(cue.end);
                continue;
            }
        }
        cues.push(piece);
    }
    cues
}

/// A text in pieces that fit into cues, each with its share of the time.
fn split(start: f64, end: f64, text: &str) -> Vec<Cue> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (start, end) = (sane(start), sane(end).max(sane(start)));
    let total = text.chars().count();
    if total == 0 {
        return Vec::new();
    }
    // As many pieces as it takes for the time, too; a single character cannot be made shorter.
    let by_time = ((end - start) / MAX_SECONDS).ceil().clamp(1.0, total as f64) as usize;
    let most = MAX_CHARS.min(total.div_ceil(by_time));
    // Words that are longer than that stay whole as long as they fit into a cue.
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let cut = cut(rest, most);
        pieces.push(rest[..cut].trim_end());
        rest = rest[cut..].trim_start();
    }
    let shown: usize = pieces.iter().map(|piece| piece.chars().count()).sum();
    let mut done = 0;
    let at = |chars: usize| start + (end - start) * chars as f64 / shown as f64;
    pieces
        .into_iter()
        .map(|piece| {
            let from = at(done);
            done += piece.chars().count();
            Cue { start: from, end: at(done).min(from + MAX_SECONDS), text: piece.to_owned() }
        })
        .collect()
}

/// Where a text is cut so that at most `most` characters come before: at white space, else between characters that may
/// be parted.
fn cut(text: &str, most: usize) -> usize {
    let Some((limit, _)) = text.char_indices().nth(most.max(1)) else { return text.len() };
    let (head, tail) = text.split_at(limit);
    if tail.starts_with(' ') {
        return limit;
    }
    if let Some(space) = head.rfind(' ')
        && space > 0
        // Within a script without spaces a cut anywhere is better than one far back.
        && !(is_unspaced(head.chars().last().unwrap_or(' ')) && space < limit / 2)
    {
        return space;
    }
    // A word that is too long for its share of the time, though not for a cue, stays whole.
    let word_end = text.find(' ').unwrap_or(text.len());
    if !head.contains(is_unspaced) && text[..word_end].chars().count() <= MAX_CHARS {
        return word_end;
    }
    let mut at = limit;
    while at > 0 && !may_part(text, at) {
        at = text[..at].char_indices().next_back().map_or(0, |(index, _)| index);
    }
    if at == 0 { limit } else { at }
}

/// Whether what stands left and right of a place are characters of their own.
fn may_part(text: &str, at: usize) -> bool {
    let joins = |c: char| {
        matches!(u32::from(c),
            0x0300..=0x036f | 0x0483..=0x0489 | 0x0591..=0x05bd | 0x0610..=0x061a | 0x064b..=0x065f
            | 0x0900..=0x0903 | 0x093a..=0x094f | 0x0e31 | 0x0e34..=0x0e3a | 0x0e47..=0x0e4e
            | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x200d | 0x20d0..=0x20ff | 0x3099 | 0x309a
            | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f | 0x1f3fb..=0x1f3ff | 0xe0100..=0xe01ef)
    };
    let before = text[..at].chars().next_back();
    let after = text[at..].chars().next();
    before != Some('\u{200d}') && !after.is_some_and(joins)
}

/// Times that go forward: no cue begins before the one before it, or ends after the next has begun.
fn in_order(cues: &mut [Cue]) {
    for at in 1..cues.len() {
        let (before, after) = cues.split_at_mut(at);
        let (Some(last), Some(next)) = (before.last_mut(), after.first_mut()) else { continue };
        next.start = next.start.max(last.start);
        next.end = next.end.max(next.start);
        last.end = last.end.min(next.start).max(last.start);
    }
}

fn sane(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.clamp(0.0, 3_600_000.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::transcript::{Segment, Word, words};

    fn texts(transcript: &Transcript) -> Vec<String> {
        of(transcript).into_iter().map(|cue| cue.text).collect()
    }

    #[test]
    fn words_are_gathered_until_a_cue_is_full() {
        let transcript = Transcript {
            words: words(&[
                ("This", 0.0, 0.2),
                ("is", 0.2, 0.3),
                ("a", 0.3, 0.4),
                ("sentence", 0.4, 0.9),
                ("of", 0.9, 1.0),
                ("forty-two", 1.0, 1.5),
                ("characters.", 1.5, 2.0),
                ("And", 6.0, 6.2),
                ("more.", 6.2, 6.5),
            ]),
            ..Transcript::default()
        };
        assert_eq!(
            texts(&transcript),
            ["This is a sentence of forty-two", "characters.", "And more."],
            "43 characters are one too many, and a pause ends a cue"
        );
    }

    #[test]
    fn scripts_without_spaces_are_cut_between_characters() {
        let text = "今日は天気がとてもいいので散歩に行きましょう。".repeat(3);
        let transcript = Transcript {
            segments: vec![Segment { start: 0.0, end: 12.0, text: text.clone(), ..Segment::default() }],
            ..Transcript::default()
        };
        let cues = of(&transcript);
        assert_eq!(cues.iter().map(|cue| cue.text.as_str()).collect::<String>(), text);
        assert!(cues.iter().all(|cue| cue.text.chars().count() <= MAX_CHARS));
        assert!(cues.iter().all(|cue| cue.end - cue.start <= MAX_SECONDS + 1e-9));
    }

    #[test]
    fn what_belongs_together_is_not_parted() {
        let text = "👩‍👩‍👧".repeat(20);
        for cue in split(0.0, 5.0, &text) {
            assert!(!cue.text.starts_with('\u{200d}') && !cue.text.ends_with('\u{200d}'), "{}", cue.text);
        }
    }

    #[test]
    fn speakers_do_not_share_a_cue() {
        let mut list = words(&[("Yes", 0.0, 0.2), ("No", 0.3, 0.5)]);
        list[0].speaker = Some("A".into());
        list[1].speaker = Some("B".into());
        assert_eq!(texts(&Transcript { words: list, ..Transcript::default() }), ["Yes", "No"]);
    }

    #[test]
    fn without_times_there_are_no_cues() {
        assert_eq!(of(&Transcript { text: "a".into(), ..Transcript::default() }), []);
    }

    proptest! {
        #[test]
        fn every_cue_can_be_read(
            list in prop::collection::vec(
                ("[a-zé今日は👍🏽\u{301}]{0,60}", -1.0f64..20_000.0, -1.0f64..30.0), 0..40),
        ) {
            let words: Vec<Word> = list
                .into_iter()
                .map(|(text, start, length)| Word { start, end: start + length, text, ..Word::default() })
                .collect();
            let said: String = words.iter().map(|word| word.text.as_str()).collect();
            let cues = of(&Transcript { words, ..Transcript::default() });
            let shown: String = cues.iter().map(|cue| cue.text.replace(' ', "")).collect();
            prop_assert_eq!(shown, said);
            let mut last = 0.0;
            for cue in &cues {
                prop_assert!(cue.text.chars().count() <= MAX_CHARS && !cue.text.is_empty());
                prop_assert!(cue.start >= last && cue.end >= cue.start);
                prop_assert!(cue.end - cue.start <= MAX_SECONDS + 1e-6);
                last = cue.start;
            }
        }
    }
}
