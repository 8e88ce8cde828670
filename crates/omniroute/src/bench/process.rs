//! Other processes: starting, watching, ending.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{net::TcpStream, process::Command, time::Instant};

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Units of processor time in `/proc`, the same on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// A folder that goes away with its owner.
#[derive(Debug)]
pub(super) struct Workspace(PathBuf);

impl Workspace {
    pub(super) fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("omniroute-bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own tidying of temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with its owner.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    pid: u32,
    log: PathBuf,
}

impl Child {
    /// Starts a command; what it prints goes to a file.
    pub(super) fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let copy = file.try_clone().context("cannot share a log file")?;
        command.stdin(Stdio::null()).stdout(file).stderr(copy).kill_on_drop(true);
        let process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let pid = process.id().context("the process ended at once")?;
        Ok(Self { process, pid, log: log.to_owned() })
    }

    /// Whether it still runs; if not, why.
    pub(super) fn alive(&mut self) -> Result<()> {
        match self.process.try_wait().context("cannot ask for a process")? {
            None => Ok(()),
            Some(status) => bail!("the process ended with {status}; it said: {}", self.last_words()),
        }
    }

    /// The end of what it printed.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// Asks it to end and waits until it has.
    pub(super) async fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").arg("-TERM").arg(self.pid.to_string()).status().await;
        asked.context("cannot run `kill`")?;
        match tokio::time::timeout(PATIENCE, self.process.wait()).await {
            Ok(ended) => ended.map(|_| ()).context("cannot wait for a process"),
            Err(_) => bail!("the process did not end within {PATIENCE:?}; it said: {}", self.last_words()),
        }
    }

    /// Processor time of it and its children so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.family().into_iter().map(cpu_seconds).sum()
    }

    /// Memory in use, in MiB (1,048,576 bytes).
    pub(super) fn resident_mb(&self) -> Result<f64> {
        status_mb(self.pid, "VmRSS:")
    }

    /// Most memory that ever was in use.
    pub(super) fn peak_mb(&self) -> Result<f64> {
        status_mb(self.pid, "VmHWM:")
    }

    fn family(&self) -> Vec<u32> {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        std::iter::once(self.pid)
            .chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()))
            .collect()
    }
}

/// A loopback port that nobody uses at the moment.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free loopback port")?;
    Ok(listener.local_addr().context("no free loopback port")?.port())
}

/// Waits until somebody listens.
pub(super) async fn listening(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        if Instant::now() > deadline {
            bail!("nobody listens on {address} after {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The second field is the name in parentheses and may contain anything; user and system time are fields 14 and 15.
    let behind_name = text.rsplit(')').next().unwrap_or_default();
    let mut times =
        behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    match (times.next(), times.next()) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS_PER_SECOND),
        _ => bail!("{path} is not as expected: {text}"),
    }
}

fn status_mb(pid: u32, name: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|number| number.parse::<f64>().ok())
        .with_context(|| format!("{path} has no {name}"))?;
    Ok(kilobytes / 1024.0)
}
