//! The machine: which CPU is whose, and what it is.

use std::{fs, path::Path};

use tokio::process::Command;

use super::process::{Child, Workspace};

/// Runs as long as the process does whose id it is given, and looks for it now and then.
const AWAKE: &str =
    "while kill -0 $1 2>/dev/null; do i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; done";

/// Who runs on which CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pins {
    /// What is measured on the first CPU, simulator and load on the second.
    Apart,
    /// Everybody where the system wants; why.
    Nowhere(&'static str),
}

impl Pins {
    pub(super) fn of_this_machine() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let installed = ["/usr/bin/taskset", "/bin/taskset"].iter().any(|path| Path::new(path).exists());
        match (cpus, installed) {
            (2.., true) => Self::Apart,
            (_, false) => Self::Nowhere("taskset is not installed (Debian: apt install util-linux)"),
            (_, true) => Self::Nowhere("there is one CPU only"),
        }
    }

    pub(super) fn note(self) -> String {
        match self {
            Self::Apart => "gateway and nginx on CPU 0, simulator and load on CPU 1".to_owned(),
            Self::Nowhere(why) => format!("nothing is pinned: {why}; ratios are less steady"),
        }
    }

    /// A command for what is measured.
    pub(super) fn measured(self, program: &Path) -> Command {
        self.on("0", program)
    }

    /// A command for what measures.
    pub(super) fn load(self, program: &Path) -> Command {
        self.on("1", program)
    }

    /// Moves this process to the CPU of the load; a note when that fails.
    pub(super) async fn keep_this_process_away(self) -> Option<String> {
        if self != Self::Apart {
            return None;
        }
        let moved = Command::new("taskset")
            .args(["-a", "-c", "-p", "1", &std::process::id().to_string()])
            .output()
            .await;
        match moved {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                Some(format!("the load is not pinned: {}", String::from_utf8_lossy(&output.stderr).trim()))
            }
            Err(error) => Some(format!("the load is not pinned: {error}")),
        }
    }

    /// Keeps the CPU of the load from going to sleep, in time that nobody else wants there. What wakes it up is time of whoever
    /// sends something to it: the slower a gateway is, the more often that CPU would have slept, and the kernel would make
    /// the gateway slower still. Ends with this process, however that ends; a note where it cannot be.
    pub(super) fn keep_awake(self, workspace: &Workspace) -> Result<Option<Child>, String> {
        if self != Self::Apart {
            return Ok(None);
        }
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", "taskset", "-c", "1", "sh", "-c", AWAKE, "sh"]);
        command.arg(std::process::id().to_string());
        match Child::spawn(&mut command, &workspace.file("awake.log")) {
            Ok(child) => Ok(Some(child)),
            Err(error) => {
                Err(format!("the load's CPU may sleep in between, which costs whoever wakes it: {error}"))
            }
        }
    }

    fn on(self, cpu: &str, program: &Path) -> Command {
        match self {
            Self::Apart => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(cpu).arg(program);
                command
            }
            Self::Nowhere(_) => Command::new(program),
        }
    }
}

/// What was measured on what.
pub(super) fn describe(program: &Path) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(':')))
        .map_or("unknown CPU", |(_, name)| name.trim());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let size = fs::metadata(program).map_or(0, |file| file.len()) >> 20;
    let profile = if cfg!(debug_assertions) { "a DEBUG build: figures say nothing" } else { "release build" };
    format!("{model}, {cpus} CPUs; gateway {} ({profile}, {size} MB)", env!("CARGO_PKG_VERSION"))
}
