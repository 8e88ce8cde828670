//! Files on their way to an upstream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use omniroute_engine::ports::{Attachment, Departure, OutboundCall, Transport as _};
use omniroute_engine::spool::{Spool, Spooled};
use omniroute_engine::time::SystemClock;
use omniroute_engine::transport::NetworkTransport;
use omniroute_testkit::upstream::{Answer, ScriptedUpstream};
use smallvec::smallvec;

async fn spooled(size: usize) -> (Vec<u8>, Arc<Spooled>) {
    let bytes: Vec<u8> = (0..size).map(|at| (at / 3 % 251) as u8).collect();
    let mut spool = Spool::new();
    for piece in bytes.chunks(100_000) {
        spool.push(piece).await.unwrap();
    }
    (bytes, Arc::new(spool.finish().await.unwrap()))
}

#[tokio::test]
async fn files_are_sent_behind_the_body_as_often_as_it_takes() {
    let upstream = ScriptedUpstream::start().await;
    let transport = NetworkTransport::new(Duration::from_secs(5), Arc::new(SystemClock));
    for size in [0, 1000, 9 * 1024 * 1024] {
        let (bytes, file) = spooled(size).await;
        for _ in 0..2 {
            upstream.answer(Answer::json(200, "{}"));
            let sent = upstream.requests().len();
            let call = OutboundCall {
                method: Method::POST,
                uri: upstream.url("/upload").parse().unwrap(),
                headers: HeaderMap::new(),
                body: smallvec![Bytes::from_static(b"head|")],
                attachment: Some(Box::new(Attachment {
                    files: vec![
                        (file.clone(), Bytes::from_static(b"|between|")),
                        (file.clone(), Bytes::new()),
                        (file.clone(), Bytes::from_static(b"|tail")),
                    ],
                })),
                allow_private: true,
                departure: Departure::default(),
            };
            let response = transport.send(call).await.unwrap();
            assert_eq!(response.status(), 200);
            let captured = upstream.requests().remove(sent);
            let expected = [b"head|".as_slice(), &bytes, b"|between|", &bytes, &bytes, b"|tail"].concat();
            assert_eq!(captured.header("content-length"), Some(expected.len().to_string().as_str()));
            assert!(captured.body == expected, "{size} bytes");
        }
    }
}
