//! The simulator over HTTP.

use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test]
async fn both_protocols_are_spoken_and_the_stop_is_orderly() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let tracker = tokio_util::task::TaskTracker::new();
    let server = tracker.spawn(omniroute_sim::serve(listener, stop.clone()));
    for http2 in [false, true] {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_only(http2)
            .build_http::<Full<Bytes>>();
        for (model, stream) in
            [("echo", false), ("chunks-3", true), ("bench-size-1k", false), ("bench-chunks-100", true)]
        {
            let request = Request::post(format!("http://{address}/v1/chat/completions"))
                .header("content-type", "application/json")
                .header("authorization", "Bearer k")
                .body(Full::from(call(Dialect::Chat, model, stream).body.to_string()))
                .unwrap();
            let response = client.request(request).await.unwrap();
            assert_eq!(response.status(), 200, "{model}");
            let text = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(text.ends_with(b"data: [DONE]\n\n"), stream, "{model}");
        }
        let request = Request::post(format!("http://{address}/v1/chat/completions"))
            .header("content-type", "application/json")
            .header("authorization", "Bearer k")
            .body(Full::from(call(Dialect::Chat, "cut-2", true).body.to_string()))
            .unwrap();
        let response = client.request(request).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
    }
    stop.cancel();
    server.await.unwrap().unwrap();
}
