//! A connection that breaks after a commit and before it is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use omniroute_engine::ports::{Recorder as _, RequestRow};
use omniroute_store::{Location, Period, Store, StoreOptions, StoreRecorder, WriterHandle};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::fixture::{Fixture, NOW, request, writer};
use crate::recording::{SLOW, refuse_rows_of_the_status};

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

/// A writer whose connection breaks when it next commits.
struct World {
    fixture: Fixture,
    proxy: Proxy,
    recorder: Arc<StoreRecorder>,
    handle: WriterHandle,
}

impl World {
    async fn new() -> Option<Self> {
        let fixture = Fixture::postgres().await?;
        let Location::Postgres { url } = &fixture.options.location else { panic!("PostgreSQL") };
        let url = url.expose_secret();
        let server = url.split('@').nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        let proxy = Proxy::before(server.to_owned()).await;
        let through = url.replace(server, &format!("127.0.0.1:{}", proxy.port));
        let options =
            StoreOptions { location: Location::Postgres { url: through.into() }, ..fixture.options.clone() };
        let (recorder, handle) = writer(&Store::open(options).await.unwrap(), SLOW);
        recorder.record(request("r1", NOW));
        handle.flush().await;
        proxy.is_armed.store(true, Ordering::Relaxed);
        Some(Self { fixture, proxy, recorder, handle })
    }

    /// So many requests are written, each once; so many were refused.
    async fn holds(&self, written: u64, refused: u64) {
        assert!(!self.proxy.is_armed.load(Ordering::Relaxed), "a commit was not acknowledged");
        let stats = self.recorder.stats();
        assert_eq!((stats.written_rows, stats.shed_rows), (written, refused));
        let store = &self.fixture.store;
        let history = store.usage().history(Period::All, NOW + 3).await.unwrap();
        assert_eq!(history.total.requests, i64::try_from(written + refused).unwrap());
        assert_eq!(store.call_logs().lines(10).await.unwrap().len(), usize::try_from(written).unwrap());
    }
}

#[tokio::test]
async fn a_batch_whose_commit_is_not_acknowledged_is_written_once() {
    let Some(world) = World::new().await else { return };
    for number in 2..4 {
        world.recorder.record(request(&format!("r{number}"), NOW + number));
        world.handle.flush().await;
    }
    assert_eq!(world.recorder.stats().flush_failures, 1);
    world.holds(3, 0).await;
}

#[tokio::test]
async fn so_is_a_row_that_is_written_by_itself() {
    let Some(world) = World::new().await else { return };
    refuse_rows_of_the_status(&world.fixture, 418).await;
    for (number, status) in [(2, 418), (3, 200), (4, 200)] {
        world.recorder.record(RequestRow { status, ..request(&format!("r{number}"), NOW) });
    }
    world.handle.flush().await;
    world.holds(3, 1).await;
}

#[tokio::test]
async fn so_is_what_is_written_at_the_end() {
    let Some(world) = World::new().await else { return };
    world.recorder.record(request("r2", NOW));
    world.handle.close().await;
    world.holds(2, 0).await;
}
