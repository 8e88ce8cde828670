//! How streams are written.

use super::*;

#[tokio::test]
async fn what_stands_around_events_does_not_change_them() {
    for dialect in ALL {
        let plain = ask(call(dialect, "echo", true)).await;
        for word in [
            "crlf",
            "comments",
            "multiline",
            "tight",
            "writes-1",
            "writes-7",
            "writes-1m",
            "crlf-comments-multiline",
        ] {
            let model = format!("echo-{word}");
            let stream = ask(call(dialect, &model, true)).await;
            assert_eq!(stream.streamed().text, SAID, "{dialect:?} {word}");
            assert_eq!(stream.events().len(), plain.events().len(), "{dialect:?} {word}");
        }
        let crlf = ask(call(dialect, "echo-crlf", true)).await.raw();
        assert!(crlf.contains("\r\n") && !crlf.replace("\r\n", "").contains('\n'), "{dialect:?}");
        if dialects::stream_type(dialect).starts_with("text/event-stream") {
            for (word, part) in [("comments", "\n: "), ("multiline", ",\ndata: "), ("tight", "data:{")] {
                let stream = ask(call(dialect, &format!("echo-{word}"), true)).await;
                assert!(stream.raw().contains(part), "{dialect:?} {word}: {}", stream.raw());
            }
        }
    }
}

#[tokio::test]
async fn characters_are_split_over_writes() {
    for dialect in ALL {
        for stream in [false, true] {
            let split = ask(call(dialect, "echo-writes-1", stream).saying("né 你😀")).await;
            assert!(split.frames.iter().all(|frame| frame.len() == 1), "{dialect:?}");
            let said = if stream { split.streamed() } else { split.said() };
            assert_eq!(said.text, "né 你😀", "{dialect:?}");
        }
        let joined = ask(call(dialect, "echo-writes-1m", true)).await;
        assert_eq!(joined.frames.len(), 1, "{dialect:?}");
    }
}
