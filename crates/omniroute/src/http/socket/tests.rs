use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
                      date: Thu, 26 Nov 2026 10:38:43 GMT\r\n\r\n";

#[test]
fn the_servers_own_answers_are_known_from_ours() {
    let with = |from: &str, to: &str| String::from_utf8_lossy(BARE).replacen(from, to, 1).into_bytes();
    for (answer, expected) in [
        (BARE.to_vec(), true),
        (with("400 Bad Request", "431 Request Header Fields Too Large"), true),
        (with("HTTP/1.1", "HTTP/1.0"), true),
        (with("connection: close\r\n", ""), true),
        (with("400 Bad Request", "200 OK"), false),
        (with("length: 0", "length: 3"), false),
        (with("date:", "x-request-id: req_1\r\ndate:"), false),
        (with("\r\n\r\n", "\r\n\r\nbody"), false),
        (with("\r\n\r\n", "\r\n"), false),
        (BARE[..40].to_vec(), false),
        (b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), false),
        (b"HTTP/1.1".to_vec(), false),
        (Vec::new(), false),
    ] {
        assert_eq!(is_bare(&answer), expected, "{}", String::from_utf8_lossy(&answer));
    }
}

#[test]
fn the_request_line_is_read_from_what_fits() {
    let mut beginning = Beginning::new();
    let long = format!("GET /v1/{} HTTP/1.1\r\n", "y".repeat(500));
    for (reads, expected) in [
        (&["GET /v1/models?limit=3 HTTP/1.1\r\nhost: a\r\n"][..], Some("GET /v1/models")),
        (&["\r\n\nPOST /a#b HTTP/1.1\r\n"], Some("POST /a")),
        // The server reads the first bytes alone, to know the version.
        (&["POST /v1/chat/completion", "s HTTP/1.1\r\n", "host: a\r\n"], Some("POST /v1/chat/completions")),
        (&["GET http://host:1/v1/x?y HTTP/1.1\r\n"], Some("GET /v1/x")),
        (&["GET http://host HTTP/1.1\r\n"], None),
        (&["HEAD /\r\n"], Some("HEAD /")),
        (&["GET /a\x07b HTTP/1.1\r\n"], Some("GET /a")),
        (&["OPTIONS * HTTP/1.1\r\n"], None),
        (&["hello world\r\n"], None),
        (&["Hello /world\r\n"], None),
        (&["GET"], None),
        (&[" / HTTP/1.1"], None),
        (&["\r\n\r\n"], None),
        (&[&long], Some(&long[..BEGINNING])),
    ] {
        for read in reads {
            beginning.read(read.as_bytes());
        }
        let line = beginning.request_line().map(|(method, path)| format!("{method} {path}"));
        assert_eq!(line.as_deref(), expected, "{reads:?}");
        assert_eq!(beginning.is_open(), reads != ["\r\n\r\n"]);
        beginning.is_answered = true;
        assert!(!beginning.is_open());
    }
    // The end of the connection is not the beginning of a request.
    beginning.read(b"");
    assert!(!beginning.is_open());
    beginning.read(&[0x16, 0x03, 0x01, 0x02]);
    assert!(beginning.is_tls() && beginning.request_line().is_none());
}

#[tokio::test]
async fn what_is_written_arrives_whole_through_a_narrow_pipe() {
    let body = vec![b'x'; 1000];
    // The server's own answer is let go when it was not its last word.
    let writes: [&[u8]; 5] = [b"HTTP/1.1 200 OK\r\n\r\n", &body, BARE, b"more", BARE];
    let (near, mut far) = duplex(7);
    let (mut socket, back) = Socket::new(near, Duration::from_secs(30));
    let writing = async {
        for bytes in writes {
            socket.write_all(bytes).await.unwrap();
            socket.flush().await.unwrap();
        }
        socket.shutdown().await.unwrap();
        drop(socket);
        let mut left = back.await.unwrap();
        assert_eq!(left.bare, BARE);
        // Still open.
        left.io.write_all(b"the end").await.unwrap();
        left.io.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(far.read_to_end(&mut got), writing);
    read.unwrap();
    assert_eq!(got, [&writes[..4].concat(), &b"the end"[..]].concat());
}

#[tokio::test]
async fn vectored_writes_let_go_too_and_an_orderly_end_closes() {
    let (near, mut far) = duplex(7);
    let (mut socket, back) = Socket::new(near, Duration::from_secs(30));
    let writing = async {
        socket.write_all(BARE).await.unwrap();
        let mut sent = 0;
        while sent < 9 {
            let rest = &b"one two 3"[sent..];
            let halves = rest.split_at(rest.len() / 2);
            let slices = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
            sent += std::future::poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, &slices))
                .await
                .unwrap();
        }
        socket.shutdown().await.unwrap();
        assert!(back.is_empty());
    };
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(far.read_to_end(&mut got), writing);
    read.unwrap();
    assert_eq!(got, [BARE, b"one two 3"].concat());
}
