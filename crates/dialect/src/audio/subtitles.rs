//! SubRip (`.srt`) and WebVTT (`.vtt`).

use std::fmt::Write as _;

use super::cues::Cue;

/// SubRip.
pub(super) fn srt(cues: &[Cue]) -> String {
    let mut out = String::with_capacity(cues.len() * 80);
    for (at, cue) in cues.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}", at + 1);
        let _ = writeln!(out, "{} --> {}", time(cue.start, ','), time(cue.end, ','));
        // An arrow would be read as a line of times.
        out.push_str(&cue.text.replace("-->", "->"));
        out.push_str("\n\n");
    }
    out
}

/// WebVTT.
pub(super) fn vtt(cues: &[Cue]) -> String {
    let mut out = String::with_capacity(cues.len() * 80 + 8);
    out.push_str("WEBVTT\n\n");
    for cue in cues {
        let _ = writeln!(out, "{} --> {}", time(cue.start, '.'), time(cue.end, '.'));
        for c in cue.text.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                c => out.push(c),
            }
        }
        out.push_str("\n\n");
    }
    out
}

/// Hours, minutes, seconds and thousandths.
fn time(seconds: f64, point: char) -> String {
    // Cues have times between zero and a thousand hours.
    let millis = (seconds * 1000.0).round() as u64;
    let (all_seconds, millis) = (millis / 1000, millis % 1000);
    let (minutes, seconds) = (all_seconds / 60, all_seconds % 60);
    format!("{:02}:{:02}:{seconds:02}{point}{millis:03}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cue(start: f64, end: f64, text: &str) -> Cue {
        Cue { start, end, text: text.into() }
    }

    #[test]
    fn both_formats() {
        let cues = [cue(0.0, 1.5, "a < b --> c & d"), cue(3661.0004, 3661.9996, "今日は")];
        assert_eq!(
            srt(&cues),
            "1\n00:00:00,000 --> 00:00:01,500\na < b -> c & d\n\n\
             2\n01:01:01,000 --> 01:01:02,000\n今日は\n\n"
        );
        assert_eq!(
            vtt(&cues),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt; b --&gt; c &amp; d\n\n\
             01:01:01.000 --> 01:01:02.000\n今日は\n\n"
        );
        assert_eq!((srt(&[]).as_str(), vtt(&[]).as_str()), ("", "WEBVTT\n\n"));
    }
}
