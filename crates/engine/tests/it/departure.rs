//! The network says when a request has left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use omniroute_engine::ports::{Departure, OutboundCall, Transport as _};
use omniroute_engine::time::SystemClock;
use omniroute_engine::transport::NetworkTransport;
use omniroute_testkit::upstream::{Answer, ScriptedUpstream};
use smallvec::smallvec;
use tokio::net::TcpListener;

fn call(url: &str, body: Bytes) -> (OutboundCall, Departure) {
    let departure = Departure::watched();
    let call = OutboundCall {
        method: Method::POST,
        uri: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: smallvec![Bytes::from_static(b"head|"), body],
        attachment: None,
        allow_private: true,
        departure: departure.clone(),
    };
    (call, departure)
}

fn transport() -> NetworkTransport {
    NetworkTransport::new(Duration::from_secs(5), Arc::new(SystemClock))
}

#[tokio::test]
async fn a_request_that_was_answered_had_left_over_new_and_kept_connections() {
    let (upstream, transport) = (ScriptedUpstream::start().await, transport());
    for _ in 0..2 {
        upstream.answer(Answer::json(200, "{}"));
        let (call, departure) = call(&upstream.url("/chat"), Bytes::from_static(b"tail"));
        assert!(!departure.has_left());
        assert_eq!(transport.send(call).await.unwrap().status(), 200);
        assert!(departure.has_left());
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_before_its_answer_has_left() {
    let (upstream, transport) = (ScriptedUpstream::start().await, transport());
    upstream.answer(Answer::json(200, "{}").after(Duration::from_secs(60)));
    let (call, departure) = call(&upstream.url("/chat"), Bytes::from_static(b"tail"));
    let waits = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            _ = transport.send(call) => panic!("it was answered too early"),
            () = async { while !departure.has_left() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
        }
    });
    waits.await.expect("it leaves");
}

#[tokio::test]
async fn a_request_without_a_connection_has_not_left_nor_has_one_that_is_sent_in_part() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/chat", listener.local_addr().unwrap())
    };
    let (outbound, departure) = call(&gone, Bytes::from_static(b"tail"));
    assert!(transport().send(outbound).await.is_err() && !departure.has_left());

    // Nobody reads: the buffers on the way are full before half of it is sent.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/chat", listener.local_addr().unwrap());
    let (mut outbound, departure) = call(&url, Bytes::from(vec![b'x'; 64 << 20]));
    outbound.body.push(Bytes::from_static(b"|tail"));
    let sent = tokio::time::timeout(Duration::from_millis(500), transport().send(outbound)).await;
    assert!(sent.is_err() && !departure.has_left());
}
