//! `omniroute bench`: what the gateway costs, in ratios to what nginx costs on the same machine in the same minute.
//!
//! The simulator answers; the load comes from [`client`]; in between stands nothing, nginx, or this very program with
//! keys, limits and the log on. Rounds of all three take turns, every other time in the opposite order, so that whatever
//! else the machine does hits them alike, and the median round counts. Gateways that differ in combos and budgets alone take
//! turns within a second, and start anew with every round. Gateway and nginx get the first CPU for themselves, everything else shares the second.

mod client;
mod gateway;
mod installation;
mod machine;
mod nginx;
mod process;
mod report;
mod scenario;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use self::{
    client::{Load, Outcome},
    gateway::{Gateway, Size},
    machine::Pins,
    nginx::Nginx,
    process::{Child, Workspace},
    report::{Line, Memory, Report},
    scenario::{Scenario, Setting},
};

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchOptions {
    /// Fewer and shorter rounds: a look, not a measurement
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Seconds of a round
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: Option<u64>,
    /// Rounds of every scenario
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: Option<u64>,
    /// Only these scenarios (names as in the report)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) scenarios: Vec<String>,
    /// Only these: direct, nginx, gateway, accounts, many
    #[arg(long, value_name = "TARGET", value_delimiter = ',')]
    pub(crate) targets: Vec<String>,
    /// The gateway's program, if not this one
    #[arg(long, value_name = "FILE")]
    pub(crate) gateway: Option<PathBuf>,
}

/// What stands between the load and the simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    Direct,
    Nginx,
    Gateway,
    /// The gateway with many accounts and keys, and with prices; asked for models of eight of its endpoints in turn.
    Accounts,
    /// The same with combos and budgets; asked for a combo of these eight.
    Many,
}

/// A round of those that differ little: short, so that the machine is the same for two that follow each other.
const SLICE: Duration = Duration::from_millis(1_000 / SLICES_PER_SECOND);
/// What a gateway writes behind a slice falls into the next one; more would blur what they compare.
const SLICES_PER_SECOND: u64 = 2;

impl Target {
    const ALL: [Target; 5] = [Target::Direct, Target::Nginx, Target::Gateway, Target::Accounts, Target::Many];

    /// Whether it is measured in slices, against another one that differs little.
    fn is_sliced(self) -> bool {
        matches!(self, Target::Accounts | Target::Many)
    }

    fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::Nginx => "nginx",
            Target::Gateway => "gateway",
            Target::Accounts => "accounts",
            Target::Many => "many",
        }
    }
}

/// What runs during the measurement.
struct Stage {
    pins: Pins,
    program: PathBuf,
    simulator: SocketAddr,
    nginx: Option<Nginx>,
    gateway: Option<Gateway>,
    accounts: Option<Gateway>,
    many: Option<Gateway>,
    round: Duration,
    rounds: u64,
}

/// Measures, prints the report and writes it where it was asked for.
pub(crate) async fn run(options: BenchOptions) -> Result<()> {
    let wanted = |target: Target| {
        options.targets.is_empty() || options.targets.iter().any(|name| name == target.name())
    };
    if let Some(unknown) =
        options.targets.iter().find(|name| !Target::ALL.iter().any(|target| target.name() == *name))
    {
        bail!("unknown target `{unknown}`, there are direct, nginx, gateway, accounts and many");
    }
    let scenarios = scenario::chosen(&options.scenarios)?;
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let program = options.gateway.clone().unwrap_or_else(|| own.clone());
    let mut report = Report::new(machine::describe(&program));

    let pins = Pins::of_this_machine();
    report.note(pins.note());
    if let Some(note) = pins.keep_this_process_away().await {
        report.note(note);
    }
    let workspace = Workspace::create()?;
    let mut awake = pins.keep_awake(&workspace).unwrap_or_else(|note| {
        report.note(note);
        None
    });
    let simulator_port = process::free_port()?;
    let _simulator = Child::spawn(
        pins.load(&own).arg("sim").arg("--port").arg(simulator_port.to_string()),
        &workspace.file("simulator.log"),
    )?;
    let simulator = SocketAddr::from(([127, 0, 0, 1], simulator_port));
    process::listening(simulator).await.context("the simulator does not start")?;

    let nginx = if wanted(Target::Nginx) {
        match Nginx::start(&pins, &workspace, simulator).await? {
            Some(nginx) => Some(nginx),
            None => {
                report.note(
                    "nginx is not installed: ratios to it are not measured (Debian: apt install nginx-light)"
                        .to_owned(),
                );
                None
            }
        }
    } else {
        None
    };
    let gateway = if wanted(Target::Gateway) {
        let gateway = Gateway::start(&pins, &workspace, &program, simulator, Size::Single).await?;
        let starts = if options.quick { 3 } else { 5 };
        let (gateway, start_ms) = gateway.restarts(&pins, &program, starts).await?;
        report.start_ms = Some(start_ms);
        // Whatever the start left to be done in the background is over by then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Some(gateway)
    } else {
        None
    };
    let compares_many = scenarios.iter().any(|scenario| scenario.compares_many);
    let (mut accounts, mut many) = (None, None);
    for (target, size, gateway) in
        [(Target::Accounts, Size::Accounts, &mut accounts), (Target::Many, Size::Installation, &mut many)]
    {
        if wanted(target) && compares_many {
            *gateway = Some(Gateway::start(&pins, &workspace, &program, simulator, size).await?);
        }
    }
    let idle_mb = gateway.as_ref().map(|gateway| gateway.resident_mb()).transpose()?;

    let mut stage = Stage {
        pins,
        program,
        simulator,
        nginx,
        gateway,
        accounts,
        many,
        round: Duration::from_secs(options.seconds.unwrap_or(if options.quick { 1 } else { 2 })),
        rounds: options.rounds.unwrap_or(if options.quick { 3 } else { 5 }),
    };
    let mut loaded_mb: f64 = 0.0;
    for group in scenario::groups(&scenarios) {
        let lines = stage.measure(&group, wanted(Target::Direct), &mut loaded_mb).await?;
        report.lines.extend(lines);
    }
    if let (Some(gateway), Some(idle_mb)) = (&stage.gateway, idle_mb) {
        tokio::time::sleep(Duration::from_secs(if options.quick { 3 } else { 10 })).await;
        report.memory = Some(Memory {
            idle_mb,
            loaded_mb,
            peak_mb: gateway.peak_mb()?,
            after_mb: gateway.resident_mb()?,
        });
    }
    if let Some(Err(error)) = awake.as_mut().map(Child::alive) {
        report.note(format!("the load's CPU was not kept awake: {error}"));
    }
    report.print().context("cannot print the report")?;
    if let Some(file) = &options.json {
        report.write(file)?;
    }
    for gateway in [stage.gateway, stage.accounts, stage.many].into_iter().flatten() {
        gateway.stop().await?;
    }
    if let Some(nginx) = stage.nginx {
        nginx.stop().await?;
    }
    Ok(())
}

/// One scenario in front of one target: where to send what.
struct Run<'a> {
    scenario: &'a Scenario,
    target: Target,
    load: Load,
    rounds: Vec<Outcome>,
    cpu_seconds: f64,
}

impl Stage {
    /// Measures scenarios that are compared with each other, all targets in turn.
    async fn measure(&mut self, group: &[&Scenario], direct: bool, loaded_mb: &mut f64) -> Result<Vec<Line>> {
        let mut runs = Vec::new();
        for scenario in group {
            for target in Target::ALL {
                let setting = match target {
                    Target::Direct if direct => Setting::plain(self.simulator),
                    Target::Direct => continue,
                    Target::Nginx => match &self.nginx {
                        Some(nginx) => Setting::plain(nginx.address()),
                        None => continue,
                    },
                    Target::Gateway => match &self.gateway {
                        Some(gateway) => gateway.setting(),
                        None => continue,
                    },
                    Target::Accounts => match &self.accounts {
                        Some(accounts) if scenario.compares_many => accounts.setting(),
                        _ => continue,
                    },
                    Target::Many => match &self.many {
                        Some(many) if scenario.compares_many => many.setting(),
                        _ => continue,
                    },
                };
                if scenario.gateway_only && matches!(target, Target::Direct | Target::Nginx) {
                    continue;
                }
                let duration = if target.is_sliced() { SLICE } else { self.round };
                let load = scenario.load(&setting, duration);
                runs.push(Run { scenario, target, load, rounds: Vec::new(), cpu_seconds: 0.0 });
            }
        }
        let (mut sliced, mut runs): (Vec<_>, Vec<_>) =
            runs.into_iter().partition(|run| run.target.is_sliced());
        warm_up(&mut runs).await?;
        self.take_turns(&mut runs, self.rounds, loaded_mb).await?;
        if !sliced.is_empty() {
            for _ in 0..self.rounds {
                self.restart_sliced().await?;
                warm_up(&mut sliced).await?;
                self.take_turns(&mut sliced, self.round.as_secs() * SLICES_PER_SECOND, loaded_mb).await?;
            }
        }
        runs.append(&mut sliced);
        Ok(runs
            .into_iter()
            .map(|run| Line::summary(run.scenario, run.target, &run.rounds, run.cpu_seconds))
            .collect())
    }

    /// Starts those anew that differ little: where a process's memory happens to lie makes more of a difference.
    async fn restart_sliced(&mut self) -> Result<()> {
        for gateway in [&mut self.accounts, &mut self.many] {
            if let Some(running) = gateway.take() {
                *gateway = Some(running.restart(&self.pins, &self.program).await?.0);
            }
        }
        Ok(())
    }

    /// Has each its rounds, in turn, every other time in the opposite order.
    async fn take_turns(&self, runs: &mut [Run<'_>], rounds: u64, loaded_mb: &mut f64) -> Result<()> {
        for round in 0..rounds {
            if round > 0 {
                runs.reverse();
            }
            for run in &mut *runs {
                let before = self.cpu_seconds(run.target)?;
                let outcome = client::run(run.load.clone())
                    .await
                    .with_context(|| format!("{} through {}", run.scenario.name, run.target.name()))?;
                run.cpu_seconds += self.cpu_seconds(run.target)? - before;
                run.rounds.push(outcome);
                if let (Target::Gateway, Some(gateway)) = (run.target, &self.gateway) {
                    *loaded_mb = loaded_mb.max(gateway.resident_mb()?);
                }
            }
        }
        if rounds.is_multiple_of(2) {
            runs.reverse();
        }
        Ok(())
    }

    /// What the processes of a target have used so far.
    fn cpu_seconds(&self, target: Target) -> Result<f64> {
        let gateway = match target {
            Target::Direct => None,
            Target::Nginx => return self.nginx.as_ref().map_or(Ok(0.0), Nginx::cpu_seconds),
            Target::Gateway => self.gateway.as_ref(),
            Target::Accounts => self.accounts.as_ref(),
            Target::Many => self.many.as_ref(),
        };
        gateway.map_or(Ok(0.0), Gateway::cpu_seconds)
    }
}

/// Has each answer for a moment, and finds out how long a good answer is.
async fn warm_up(runs: &mut [Run<'_>]) -> Result<()> {
    for run in runs {
        let what = format!("{} through {}", run.scenario.name, run.target.name());
        run.load.length = client::verified_length(&run.load).await.with_context(|| what.clone())?;
        let warm_up = Load { duration: Duration::from_millis(300), ..run.load.clone() };
        client::run(warm_up).await.context(what)?;
    }
    Ok(())
}
