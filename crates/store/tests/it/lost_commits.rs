//! A connection that breaks after a commit and before it is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use omniroute_engine::ports::Recorder as _;
use omniroute_store::{Location, Period, Store, StoreOptions, WriterOptions};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::fixture::{Fixture, NOW, request, writer};

/// Between the store and the server: passes everything on, and breaks the connection instead of telling of one commit.
struct Proxy {
    port: u16,
    is_armed: Arc<AtomicBool>,
}

impl Proxy {
    async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_armed = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&is_armed);
        let tracker = TaskTracker::new();
        tracker.clone().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tracker.spawn(pass(client, TcpStream::connect(server.clone()).await.unwrap(), armed.clone()));
            }
        });
        Self { port, is_armed }
    }
}

async fn pass(client: TcpStream, server: TcpStream, is_armed: Arc<AtomicBool>) {
    let (mut asked, mut told) = client.into_split();
    let (mut heard, mut sent) = server.into_split();
    let up = async {
        let _ = copy(&mut asked, &mut sent).await;
    };
    let down = async {
        let mut bytes = [0; 16 * 1024];
        while let Ok(count @ 1..) = heard.read(&mut bytes).await {
            let is_commit = bytes[..count].windows(7).any(|tag| tag == b"COMMIT\0");
            if is_commit && is_armed.swap(false, Ordering::Relaxed) {
                return;
            }
            if told.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

#[tokio::test]
async fn a_batch_whose_commit_is_not_acknowledged_is_written_once() {
    let Some(fixture) = Fixture::postgres().await else { return };
    let Location::Postgres { url } = &fixture.options.location else { panic!("PostgreSQL") };
    let url = url.expose_secret();
    let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let proxy = Proxy::before(server.to_owned()).await;
    let through = url.replace(server, &format!("127.0.0.1:{}", proxy.port));
    let options =
        StoreOptions { location: Location::Postgres { url: through.into() }, ..fixture.options.clone() };
    let (recorder, handle) = writer(&Store::open(options).await.unwrap(), WriterOptions::default());
    recorder.record(request("r1", NOW));
    handle.flush().await;
    proxy.is_armed.store(true, Ordering::Relaxed);
    recorder.record(request("r2", NOW + 1));
    handle.flush().await;
    recorder.record(request("r3", NOW + 2));
    handle.flush().await;
    assert!(!proxy.is_armed.load(Ordering::Relaxed));
    let stats = recorder.stats();
    assert_eq!((stats.written_rows, stats.flush_failures, stats.shed_rows), (3, 1, 0));
    assert_eq!(fixture.store.usage().history(Period::All, NOW + 3).await.unwrap().total.requests, 3);
    assert_eq!(fixture.store.call_logs().lines(10).await.unwrap().len(), 3);
}
