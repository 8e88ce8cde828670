//! What was said, whoever heard it. Times are in seconds.

/// Longest pause within a segment that is made of words.
const PAUSE: f64 = 1.0;
/// Longest segment that is made of words.
const MAX_SEGMENT: f64 = 30.0;

/// A recording as text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// All of it. Empty when nothing was said.
    pub text: String,
    /// A code (`en`, `pt-BR`) or, from some, a name.
    pub language: Option<String>,
    /// Length of the recording.
    pub duration: Option<f64>,
    /// Sentences or turns of speakers, where they were told.
    pub segments: Vec<Segment>,
    /// Every word, where they were told.
    pub words: Vec<Word>,
}

/// A part of a transcript.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Segment {
    /// Where it begins.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
    /// What is said in it.
    pub text: String,
    /// Who says it.
    pub speaker: Option<String>,
    /// How sure that is, from 0 to 1.
    pub confidence: Option<f64>,
}

/// A word with its punctuation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Word {
    /// Where it begins.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
    /// The word.
    pub text: String,
    /// Who says it.
    pub speaker: Option<String>,
    /// How sure that is, from 0 to 1.
    pub confidence: Option<f64>,
}

impl Transcript {
    /// The segments that were told, else segments made of the words: up to the end of a sentence, a pause, another
    /// speaker or half a minute.
    pub(super) fn parts(&self) -> Vec<Segment> {
        if !self.segments.is_empty() {
            return self.segments.clone();
        }
        let mut parts: Vec<Segment> = Vec::new();
        let mut is_open = false;
        let mut sure = (0.0, 0u32);
        for word in &self.words {
            let fits = is_open
                && parts.last().is_some_and(|part| {
                    word.start - part.end <= PAUSE
                        && word.end - part.start <= MAX_SEGMENT
                        && word.speaker == part.speaker
                });
            match parts.last_mut().filter(|_| fits) {
                Some(part) => {
                    append(&mut part.text, &word.text);
                    part.end = word.end.max(part.end);
                }
                None => {
                    sure = (0.0, 0);
                    parts.push(Segment {
                        start: word.start,
                        end: word.end,
                        text: word.text.clone(),
                        speaker: word.speaker.clone(),
                        confidence: None,
                    });
                }
            }
            if let Some(confidence) = word.confidence {
                sure = (sure.0 + confidence, sure.1 + 1);
            }
            if let Some(part) = parts.last_mut() {
                part.confidence = (sure.1 > 0).then(|| sure.0 / f64::from(sure.1));
            }
            is_open = !ends_sentence(&word.text);
        }
        parts
    }
}

/// Puts a word behind a text, with a space where the script has spaces between words.
pub(super) fn append(text: &mut String, word: &str) {
    let is_tight = match (text.chars().last(), word.chars().next()) {
        (Some(before), Some(after)) => is_unspaced(before) && is_unspaced(after),
        _ => true,
    };
    if !is_tight && !text.ends_with(' ') && !word.starts_with(' ') {
        text.push(' ');
    }
    text.push_str(word);
}

/// Whether a character belongs to a script without spaces between words.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff          // Thai, Lao
        | 0x1000..=0x109f        // Burmese
        | 0x1780..=0x17ff        // Khmer
        | 0x2e80..=0xa4cf        // Han, Kana, Bopomofo, Yi, their punctuation
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe4f
        | 0xff00..=0xffef        // full width
        | 0x1b000..=0x1b2ff
        | 0x20000..=0x3ffff)
}

fn ends_sentence(word: &str) -> bool {
    let word = word.trim_end_matches(['"', '\'', ')', '»', '”', '’', '」', '』']);
    word.ends_with(['.', '!', '?', '…', '。', '！', '？', '؟', '।'])
}

#[cfg(test)]
pub(super) fn words(list: &[(&str, f64, f64)]) -> Vec<Word> {
    list.iter()
        .map(|&(text, start, end)| Word { start, end, text: text.to_owned(), ..Word::default() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_segments() {
        let transcript = Transcript {
            words: words(&[
                ("Hello", 0.0, 0.4),
                ("there.", 0.4, 0.9),
                ("How", 1.0, 1.2),
                ("are", 1.2, 1.3),
                ("you", 2.6, 2.8),
                ("今日", 2.9, 3.0),
                ("は", 3.0, 3.1),
            ]),
            ..Transcript::default()
        };
        let found: Vec<_> =
            transcript.parts().into_iter().map(|part| (part.text, part.start, part.end)).collect();
        let expected: [(String, f64, f64); 3] = [
            ("Hello there.".into(), 0.0, 0.9),
            ("How are".into(), 1.0, 1.3),
            ("you 今日は".into(), 2.6, 3.1),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn speakers_are_kept_apart_and_told_segments_win() {
        let mut list = words(&[("a", 0.0, 0.1), ("b", 0.1, 0.2), ("c", 0.2, 0.3)]);
        list[2].speaker = Some("B".into());
        list[0].confidence = Some(0.5);
        list[1].confidence = Some(1.0);
        let mut transcript = Transcript { words: list, ..Transcript::default() };
        let parts = transcript.parts();
        assert_eq!((parts.len(), parts[0].confidence, parts[1].confidence), (2, Some(0.75), None));
        transcript.segments = vec![Segment { text: "x".into(), ..Segment::default() }];
        assert_eq!(transcript.parts().len(), 1);
    }
}
