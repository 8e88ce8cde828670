//! A run: clients arrive, ask, read their answers or hang up; all on one thread, in virtual time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body as _;
use omniroute_engine::Answer;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use crate::error::ScenarioError;
use crate::random::Random;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::setup::{Base, MAX_REQUESTS, Setup};
use crate::tally::{Sight, Ticket};
use crate::traffic::Request;
use crate::world::World;

/// Most requests under way; when there are more, clients arrive later than they would.
const MAX_RUNNING: usize = 50_000;
/// How a stream says that it broke off: as data, or as the name of its event.
const ERROR: &str = "\"error\":{";
const NAMED_ERROR: &str = "event: error";
/// Longer than anything that is looked for.
const OVERLAP: usize = 64;

/// What may be changed about a scenario without touching it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// How many requests.
    pub requests: Option<u64>,
    /// What all chance follows from.
    pub seed: Option<u64>,
}

/// Carries out a scenario to its end, over an operator's configuration where there is one. Nothing is sent or stored.
pub fn simulate(text: &str, base: Option<Base>, overrides: Overrides) -> Result<Report, ScenarioError> {
    let scenario = Scenario::parse(text)?;
    let requests = overrides.requests.unwrap_or(scenario.requests);
    if !(1..=MAX_REQUESTS).contains(&requests) {
        return Err(ScenarioError::whole(format!("`requests` is between 1 and {MAX_REQUESTS}")));
    }
    let seed = overrides.seed.unwrap_or(scenario.seed);
    let is_own = base.is_none();
    let setup = Setup::new(&scenario, text, base, seed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| ScenarioError::whole(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let world = Arc::new(World::new(&scenario, text, setup, is_own, seed)?);
        let held_back = arrivals(&world, requests, seed).await;
        Ok(Report::new(&scenario, &world, requests, seed, held_back))
    })
}

/// Lets all clients arrive and waits for the last to be done. Gives the number of those that had to arrive later.
async fn arrivals(world: &Arc<World>, requests: u64, seed: u64) -> u64 {
    let (mut random, began) = (Random::new(seed, 1), Instant::now());
    let clients = TaskTracker::new();
    let (mut due_ms, mut held_back) = (0.0_f64, 0);
    let shares: f64 = world.asks.iter().map(|ask| ask.share).sum();
    for number in 0..requests {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds of a run")]
        let at_ms = due_ms as u64;
        sleep_until(began + Duration::from_millis(at_ms)).await;
        if clients.len() >= MAX_RUNNING {
            held_back += 1;
            while clients.len() >= MAX_RUNNING {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let at = world.clock.since_start_ms() % world.round_ms;
        let phase = world.phases.iter().position(|phase| at < phase.to_ms).unwrap_or(0);
        due_ms += random.pause_ms(world.phases[phase].per_second);
        let ask = choose(world, &mut random, shares);
        let ticket = Ticket { number, phase, ask };
        let request = world.asks[ask].request(&ticket.to_id(), &mut random);
        let impatient = world.asks[ask].impatient.filter(|impatient| random.hits(impatient.share));
        let leaves_after = impatient.map(|impatient| random.between([1, impatient.after_ms.max(1)]));
        let world = world.clone();
        clients.spawn(async move {
            let sight = match leaves_after {
                None => client(&world, request).await,
                Some(ms) => {
                    timeout(Duration::from_millis(ms), client(&world, request)).await.unwrap_or(Sight::Left)
                }
            };
            world.tally.seen(sight);
        });
    }
    clients.close();
    clients.wait().await;
    world.engine.end_asides().await;
    held_back
}

fn choose(world: &World, random: &mut Random, shares: f64) -> usize {
    let mut left = random.unit() * shares;
    for (place, ask) in world.asks.iter().enumerate() {
        if left < ask.share {
            return place;
        }
        left -= ask.share;
    }
    world.asks.len() - 1
}

/// One client.
async fn client(world: &World, request: Request) -> Sight {
    let Request { arrival, body, end } = request;
    let mut ctx = world.engine.begin(arrival);
    let response = match world.engine.identify(&mut ctx) {
        Ok(()) => world.engine.serve(ctx, body).await,
        Err(error) => world.engine.refuse(ctx, &error),
    };
    let is_good = response.status().is_success();
    let said = read(response.into_body(), end.unwrap_or_default()).await;
    match end {
        _ if !is_good => Sight::Error,
        None => Sight::Complete,
        Some(_) if said.end && !said.error => Sight::Complete,
        Some(_) if said.error => Sight::Error,
        Some(_) => Sight::Cut,
    }
}

/// What an answer said besides its text.
#[derive(Default)]
struct Said {
    end: bool,
    error: bool,
}

/// Reads an answer to its end; each piece together with the last bytes of the one before.
async fn read(mut answer: Answer, end: &str) -> Said {
    let (mut said, mut seen) = (Said::default(), Vec::new());
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await {
        let Some(bytes) = frame.ok().and_then(|frame| frame.into_data().ok()) else { break };
        seen.drain(..seen.len().saturating_sub(OVERLAP));
        seen.extend_from_slice(&bytes);
        let says = |text: &str| memchr::memmem::find(&seen, text.as_bytes()).is_some();
        said.end |= says(end);
        said.error |= says(ERROR) || says(NAMED_ERROR);
    }
    said
}
