use std::convert::Infallible;

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use omniroute_engine::Answer;
use tokio::io::duplex;

use super::*;
use crate::http::listen::server;
use crate::http::socket::Socket;

/// What a client that sends `pieces` and then waits is answered by the service, and what it is told when the server
/// gives up.
async fn ended(pieces: &[&str]) -> (String, Option<GatewayError>) {
    let (near, mut far) = duplex(1 << 20);
    let (socket, mut leftover) = Socket::new(near, HEAD_LIMIT);
    let service =
        service_fn(async |_| Ok::<_, Infallible>(Response::new(Answer::full(Bytes::from_static(b"hello")))));
    let server = server();
    let connection = server.serve_connection(TokioIo::new(socket), service);
    let mut answers = Vec::new();
    let client = async {
        for piece in pieces {
            far.write_all(piece.as_bytes()).await.unwrap();
            // Until the service's answer, if there is one.
            let _ = timeout(Duration::from_secs(1), far.read_buf(&mut answers)).await;
        }
    };
    let (ended, ()) = tokio::join!(connection, client);
    let Leftover { io, beginning, bare } = leftover.try_recv().unwrap();
    drop(io);
    far.read_to_end(&mut answers).await.unwrap();
    let error = ended.err().and_then(|error| what_was_wrong(error.downcast_ref()?, &beginning, &bare));
    (String::from_utf8(answers).unwrap(), error)
}

#[tokio::test(start_paused = true)]
async fn who_is_owed_an_answer_when_the_server_gives_up() {
    const GOOD: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    const BAD: &str = "GET /b HTTP/1.1\r\nno colon\r\n\r\n";
    let twice = format!("{GOOD}{GOOD}{BAD}");
    for (pieces, answers, code) in [
        // Silence, before and between requests, is nothing to answer to.
        (&[][..], 0, None),
        (&["\r\n"], 0, None),
        (&["P"], 0, None),
        (&["PRI * HTTP/2.0\r\n"], 0, None),
        (&[GOOD], 1, None),
        (&[GOOD, GOOD], 2, None),
        // Half a head is.
        (&["GET /a HTTP/1.1\r\nhos"], 0, Some("request_timeout")),
        (&[GOOD, "GET /a HTTP/1.1\r\nhos"], 1, Some("request_timeout")),
        (&[BAD], 0, Some("bad_request")),
        (&["GET /b HTTP/1.1\r\n", "no co", "lon\r\n\r\n"], 0, Some("bad_request")),
        (&[GOOD, BAD], 1, Some("bad_request")),
        // Earlier answers go out first.
        (&[&twice], 2, Some("bad_request")),
        (&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand then nothing of a frame"], 0, None),
    ] {
        let (answered, error) = ended(pieces).await;
        assert_eq!(answered.matches("\r\n\r\nhello").count(), answers, "{pieces:?}: {answered}");
        assert!(!answered.contains("HTTP/1.1 4"), "{pieces:?}: {answered}");
        assert_eq!(error.as_ref().and_then(|error| error.code.as_deref()), code, "{pieces:?}");
    }
}
