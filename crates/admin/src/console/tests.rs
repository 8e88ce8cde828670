use serde_json::json;

use super::*;

fn line(level: LogLevel, message: &str) -> LogLine {
    LogLine {
        time_ms: 1_795_392_000_000,
        level,
        target: "omniroute_engine::record",
        message: message.to_owned(),
        fields: vec![("status", json!(200)), ("model", json!("m"))],
        is_cut: false,
    }
}

fn console() -> Arc<Console> {
    Arc::new(Console::new(255))
}

async fn text(follower: &mut Follower) -> String {
    String::from_utf8(follower.read().await.expect("more").to_vec()).expect("text")
}

#[test]
fn the_ring_is_bounded_in_lines_and_in_bytes() {
    let console = console();
    for number in 0..MAX_LINES + 500 {
        console.push(line(LogLevel::Info, &number.to_string()));
    }
    let tail = console.tail(LogLevel::Trace, usize::MAX);
    assert_eq!((tail.len(), &*tail[0].id, &*tail[0].message), (MAX_LINES, "ff-500", "500"));
    let long = "x".repeat(4_096);
    for _ in 0..MAX_LINES {
        console.push(line(LogLevel::Info, &long));
    }
    let ring = console.ring();
    assert!(ring.bytes <= MAX_BYTES && ring.lines.len() < 256, "{} {}", ring.bytes, ring.lines.len());
    let counted: usize = ring.lines.iter().map(|line| size(line)).sum();
    assert_eq!(ring.bytes, counted);
}

#[test]
fn levels_and_limits_choose_among_the_latest() {
    let console = console();
    for (level, message) in
        [(LogLevel::Error, "e"), (LogLevel::Debug, "d"), (LogLevel::Warn, "w"), (LogLevel::Info, "i")]
    {
        console.push(line(level, message));
    }
    for (level, most, wanted) in [
        (LogLevel::Trace, 9, "edwi"),
        (LogLevel::Info, 9, "ewi"),
        (LogLevel::Warn, 9, "ew"),
        (LogLevel::Info, 2, "wi"),
        (LogLevel::Error, 0, ""),
    ] {
        let got: String = console.tail(level, most).into_iter().map(|line| line.message).collect();
        assert_eq!(got, wanted, "{level:?} {most}");
    }
    let shown = serde_json::to_value(&console.tail(LogLevel::Error, 1)[0]).expect("JSON");
    let wanted = json!({
        "id": "ff-0", "time": "2026-11-23T00:00:00.000Z", "level": "error", "target": "omniroute_engine::record",
        "message": "e", "fields": {"status": 200, "model": "m"},
    });
    assert_eq!(shown, wanted);
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_new_lines_keep_alives_and_an_end() {
    let console = console();
    console.push(line(LogLevel::Info, "before"));
    let mut reader = console.follow(LogLevel::Info, None).expect("room");
    assert_eq!(text(&mut reader).await, "retry: 3000\n\n");
    console.push(line(LogLevel::Debug, "not for it"));
    console.push(line(LogLevel::Warn, "after"));
    let got = text(&mut reader).await;
    assert!(
        got.starts_with("id: ff-2\ndata: {\"id\":\"ff-2\"") && got.contains("\"message\":\"after\""),
        "{got}"
    );
    assert_eq!(got.matches("data:").count(), 1);
    // Lines that are not for it keep nobody from hearing that the stream is there.
    let began = Instant::now();
    let chatter = async {
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            console.push(line(LogLevel::Trace, "chatter"));
        }
    };
    let reads = async {
        let alive = text(&mut reader).await;
        (alive, began.elapsed())
    };
    let ((alive, after), ()) = tokio::join!(reads, chatter);
    assert_eq!((alive.as_str(), after), (": keep-alive\n\n", KEEP_ALIVE));
    // What was said last is read before the end.
    console.push(line(LogLevel::Info, "stopped"));
    console.close();
    let rest = text(&mut reader).await;
    assert!(rest.contains("keep-alive") || rest.contains("stopped"), "{rest}");
    if !rest.contains("stopped") {
        assert!(text(&mut reader).await.contains("stopped"));
    }
    assert_eq!(reader.read().await, None);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_woken_by_a_line_and_by_the_end() {
    let console = console();
    let mut reader = console.follow(LogLevel::Info, None).expect("room");
    text(&mut reader).await;
    let speaks = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        console.push(line(LogLevel::Info, "hello"));
    };
    let began = Instant::now();
    let (got, ()) = tokio::join!(text(&mut reader), speaks);
    assert!(got.contains("hello") && began.elapsed() == Duration::from_secs(3), "{got}");
    let ends = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        console.close();
    };
    assert_eq!(tokio::join!(reader.read(), ends).0, None);
    assert_eq!(began.elapsed(), Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_reader_has_to_come_again_after_an_hour() {
    let console = console();
    let mut reader = console.follow(LogLevel::Info, None).expect("room");
    let (began, mut pieces) = (Instant::now(), 0);
    while reader.read().await.is_some() {
        pieces += 1;
    }
    assert_eq!((began.elapsed(), pieces), (LONGEST, 240));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_how_many_lines_it_missed() {
    let console = console();
    let mut reader = console.follow(LogLevel::Info, None).expect("room");
    text(&mut reader).await;
    for number in 0..MAX_LINES + 7 {
        console.push(line(LogLevel::Info, &number.to_string()));
    }
    let got = text(&mut reader).await;
    assert!(got.starts_with("event: missed\ndata: {\"missed\":7}\n\nid: ff-7\n"), "{got}");
    assert_eq!(got.matches("\nid: ").count(), BATCH, "a bounded piece at a time");
}

#[tokio::test(start_paused = true)]
async fn who_comes_again_goes_on_where_it_was() {
    let console = console();
    for number in 0..5 {
        console.push(line(LogLevel::Info, &number.to_string()));
    }
    let ids = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
    };
    for (last, wanted) in [
        ("ff-2", vec!["ff-3", "ff-4"]),
        ("ff-3", vec!["ff-4"]),
        // Of an earlier process, or no id at all: everything is new.
        ("fe-99", vec!["ff-0", "ff-1", "ff-2", "ff-3", "ff-4"]),
        ("nonsense", vec!["ff-0", "ff-1", "ff-2", "ff-3", "ff-4"]),
    ] {
        let mut reader = console.follow(LogLevel::Info, Some(last)).expect("room");
        text(&mut reader).await;
        assert_eq!(ids(&text(&mut reader).await), wanted, "{last}");
    }
    // Of this process, but longer ago than there is.
    for number in 0..MAX_LINES {
        console.push(line(LogLevel::Info, &number.to_string()));
    }
    let mut reader = console.follow(LogLevel::Info, Some("ff-2")).expect("room");
    text(&mut reader).await;
    assert!(text(&mut reader).await.starts_with("event: missed\ndata: {\"missed\":2}\n\nid: ff-5\n"));
}

#[test]
fn there_are_only_so_many_readers() {
    let console = console();
    let readers: Vec<_> = (0..MAX_READERS).map(|_| console.follow(LogLevel::Info, None)).collect();
    assert!(readers.iter().all(Option::is_some) && console.follow(LogLevel::Info, None).is_none());
    drop(readers);
    assert!(console.follow(LogLevel::Info, None).is_some());
}
