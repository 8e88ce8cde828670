//! The program under test as a process: started on a free port over a data directory of its own, watched, ended.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use crate::client::{Call, Line, PATIENCE, Response};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_omniroute");
pub(crate) const MANAGEMENT_TOKEN: &str = "management-token-of-the-tests";

/// How the program is to be started.
pub(crate) struct Start {
    port: u16,
    data_dir: Option<PathBuf>,
    env: Vec<(String, OsString)>,
    wrapper: Vec<OsString>,
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) data_dir: PathBuf,
    child: Child,
    out: Lines,
    log: Lines,
    _folder: Option<TempDir>,
}

/// What a process has written so far.
#[derive(Clone, Default)]
struct Lines {
    text: Arc<Mutex<(String, bool)>>,
    changed: Arc<Notify>,
}

impl Start {
    /// With a token for the management API, and a directory that ends with the gateway.
    pub(crate) fn new() -> Self {
        let start = Self { port: 0, data_dir: None, env: Vec::new(), wrapper: Vec::new() };
        start.env("MANAGEMENT_TOKEN", MANAGEMENT_TOKEN).env("SHUTDOWN_TIMEOUT_MS", "10000")
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    pub(crate) fn data_dir(mut self, folder: &Path) -> Self {
        self.data_dir = Some(folder.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    /// A command that starts the program.
    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    fn spawn(&self, data_dir: &Path) -> (Child, Lines, Lines) {
        let mut words = self.wrapper.clone();
        words.extend([PROGRAM, "serve", "--port"].map(OsString::from));
        words.extend([self.port.to_string().into(), "--data-dir".into(), data_dir.into()]);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let out = Lines::collect(child.stdout.take().unwrap());
        let log = Lines::collect(child.stderr.take().unwrap());
        (child, out, log)
    }

    /// Starts the program and waits until it serves.
    pub(crate) async fn run(self) -> Gateway {
        let (data_dir, folder) = self.folder();
        let (child, out, log) = self.spawn(&data_dir);
        let greeting = out.wait_for("the greeting", |text| text.contains("Try it"), &log).await;
        let gateway = Gateway { address: address_in(&greeting), data_dir, child, out, log, _folder: folder };
        assert_eq!(gateway.call(&Call::get("/healthz")).await.status, 200);
        gateway
    }

    /// Starts the program, which is to end by itself, and gives its last words.
    pub(crate) async fn fail(self) -> (ExitStatus, String) {
        let (data_dir, _folder) = self.folder();
        let (mut child, _out, log) = self.spawn(&data_dir);
        let status = match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it did not end: {}", log.text()),
        };
        log.wait_for_end().await;
        (status, log.text())
    }

    fn folder(&self) -> (PathBuf, Option<TempDir>) {
        match &self.data_dir {
            Some(folder) => (folder.clone(), None),
            None => {
                let folder = tempfile::tempdir().unwrap();
                (folder.path().join("data"), Some(folder))
            }
        }
    }
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Start::new().run().await
    }

    /// One request over a connection of its own.
    pub(crate) async fn call(&self, call: &Call) -> Response {
        self.line().await.call(call).await
    }

    pub(crate) async fn line(&self) -> Line {
        Line::open(self.address).await
    }

    /// A management call; `Value::Null` = no body.
    pub(crate) async fn manage(&self, method: &str, path: &str, body: &Value) -> Response {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let call = match method {
            "GET" => Call::get(path),
            _ => Call::post(path, body).method(method),
        };
        self.call(&call.bearer(MANAGEMENT_TOKEN)).await
    }

    /// A management call that has to work.
    pub(crate) async fn set(&self, method: &str, path: &str, body: &Value) -> Value {
        let response = self.manage(method, path, body).await;
        assert!((200..300).contains(&response.status), "{method} {path}: {}", response.text());
        response.json()
    }

    /// The log rows, newest first, once there are so many.
    pub(crate) async fn logged(&self, count: usize) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let rows = self.set("GET", "/api/usage/call-logs?limit=500", &Value::Null).await;
            let rows = rows.as_array().unwrap();
            if rows.len() >= count {
                return rows.clone();
            }
            assert!(began.elapsed() < PATIENCE, "{} rows instead of {count}", rows.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Resident memory in MiB.
    pub(crate) fn rss_mib(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// What it has written to standard output.
    pub(crate) fn out(&self) -> String {
        self.out.text()
    }

    /// Waits until it has written this to standard output.
    pub(crate) async fn says(&self, what: &str, done: impl Fn(&str) -> bool) {
        self.out.wait_for(what, done, &self.log).await;
    }

    /// Waits until it has written this to standard error.
    pub(crate) async fn logs(&self, what: &str, done: impl Fn(&str) -> bool) {
        self.log.wait_for(what, done, &self.log).await;
    }

    /// Ends it at once, as a power cut would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it did not end: {}", self.log.text()),
        }
    }
}

impl Lines {
    fn collect(source: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines = Self::default();
        let ours = lines.clone();
        tokio::spawn(async move {
            let mut source = BufReader::new(source).lines();
            while let Ok(Some(line)) = source.next_line().await {
                let mut text = ours.text.lock().unwrap();
                text.0.push_str(&line);
                text.0.push('\n');
                drop(text);
                ours.changed.notify_waiters();
            }
            ours.text.lock().unwrap().1 = true;
            ours.changed.notify_waiters();
        });
        lines
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().0.clone()
    }

    async fn wait_for(&self, what: &str, done: impl Fn(&str) -> bool, log: &Self) -> String {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                let (text, is_over) = self.text.lock().unwrap().clone();
                if done(&text) {
                    return Some(text);
                }
                if is_over {
                    return None;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                log.wait_for_end().await;
                panic!("it ended before {what}: {}", log.text())
            }
            Err(_) => panic!("{what} did not come: {}\n{}", self.text(), log.text()),
        }
    }

    async fn wait_for_end(&self) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if self.text.lock().unwrap().1 {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the output ends with the process");
    }
}

/// The address in the last greeting.
pub(crate) fn address_in(greeting: &str) -> SocketAddr {
    let at = greeting.rfind(" on http://").unwrap_or_else(|| panic!("no address in {greeting}"));
    let rest = &greeting[at + " on http://".len()..];
    rest.lines().next().unwrap().trim().parse().unwrap()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
