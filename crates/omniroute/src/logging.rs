//! The log of the process: to standard error, and its latest lines to the console of the management API.

use std::fmt::{self, Debug};
use std::io::{BufWriter, IsTerminal as _};
use std::sync::Arc;

use anyhow::Context as _;
use omniroute_admin::{Console, LogLevel, LogLine};
use omniroute_engine::ports::Clock as _;
use omniroute_engine::time::SystemClock;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::settings::{BootSettings, LogFormat};

/// Bytes and lines of the log that wait to be written.
const LOG_BUFFER: usize = 64 * 1024;
const LOG_LINES: usize = 8 * 1024;
/// Most bytes of a message, of a value, and most values of a line in the console.
const MAX_MESSAGE: usize = 4 * 1024;
const MAX_VALUE: usize = 1024;
const MAX_FIELDS: usize = 32;
/// Libraries whose lines about what they send are for standard error alone.
const FRAMES: [&str; 2] = ["h2", "hyper"];

/// Starts the log. Lines are written by a thread of their own, as many at once as there are; when it cannot keep up, lines are
/// lost rather than requests held up. What the filter keeps out costs nothing in either place: it stands before both.
pub(crate) fn start(settings: &BootSettings) -> anyhow::Result<(WorkerGuard, Arc<Console>)> {
    let filter = EnvFilter::try_new(&settings.log_level)
        .with_context(|| format!("LOG_LEVEL `{}` is not a filter", settings.log_level))?;
    let stderr = BufWriter::with_capacity(LOG_BUFFER, std::io::stderr());
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES).finish(stderr);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let console = Arc::new(Console::new(SystemClock.now_ms()));
    let log = tracing_subscriber::registry().with(filter).with(ToConsole(console.clone()));
    match settings.log_format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json()).init(),
    }
    Ok((guard, console))
}

/// Hands every line to the console.
struct ToConsole(Arc<Console>);

impl<S: Subscriber> Layer<S> for ToConsole {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // They tell of each frame, those of who reads the console among them: its reading would never end.
        if FRAMES.iter().any(|library| metadata.target().starts_with(library)) {
            return;
        }
        let mut values = Values::default();
        event.record(&mut values);
        let Values { message, fields, is_cut } = values;
        self.0.push(LogLine {
            time_ms: SystemClock.now_ms(),
            level: level_of(metadata.level()),
            target: metadata.target(),
            message,
            fields,
            is_cut,
        });
    }
}

const fn level_of(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

/// What a line says, cut where it is too long.
#[derive(Default)]
struct Values {
    message: String,
    fields: Vec<(&'static str, Value)>,
    is_cut: bool,
}

impl Values {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        if self.fields.len() < MAX_FIELDS {
            self.fields.push((field.name(), value.into()));
        } else {
            self.is_cut = true;
        }
    }

    fn add_text(&mut self, field: &Field, write: impl FnOnce(&mut Clipped)) {
        let is_message = field.name() == "message";
        let most = if is_message { MAX_MESSAGE } else { MAX_VALUE };
        let mut clipped = Clipped { text: String::new(), most, is_cut: false };
        write(&mut clipped);
        self.is_cut |= clipped.is_cut;
        if clipped.is_cut {
            clipped.text.push('…');
        }
        if is_message {
            self.message = clipped.text;
        } else {
            self.add(field, clipped.text);
        }
    }
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add_text(field, |text| {
            let _ = fmt::Write::write_fmt(text, format_args!("{value:?}"));
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, |text| {
            let _ = fmt::Write::write_str(text, value);
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}

/// Text up to a limit; the rest is not even made into a string.
struct Clipped {
    text: String,
    most: usize,
    is_cut: bool,
}

impl fmt::Write for Clipped {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.most - self.text.len();
        let taken = if more.len() <= room { more } else { &more[..more.floor_char_boundary(room)] };
        self.text.push_str(taken);
        if taken.len() < more.len() {
            // What comes later does not belong behind the cut.
            (self.is_cut, self.most) = (true, self.text.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(console: &Console) -> Vec<Value> {
        console.latest(100).into_iter().map(|line| serde_json::to_value(line).expect("JSON")).collect()
    }

    #[test]
    fn lines_come_with_their_values_and_are_cut() {
        let console = Arc::new(Console::new(1));
        let filter = EnvFilter::new("info");
        let log = tracing_subscriber::registry().with(filter).with(ToConsole(console.clone()));
        tracing::subscriber::with_default(log, || {
            tracing::info!(status = 200_u16, share = 0.5, done = true, name = %"x", error = None::<&str>, "a {}", "line");
            tracing::warn!(long = "ä".repeat(MAX_VALUE), "{}", "m".repeat(2 * MAX_MESSAGE));
            tracing::debug!("the filter keeps it out");
        });
        let lines = tail(&console);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!((&lines[0]["level"], &lines[0]["message"]), (&"info".into(), &"a line".into()));
        let fields = serde_json::json!({"status": 200, "share": 0.5, "done": true, "name": "x"});
        assert_eq!(lines[0]["fields"], fields);
        assert_eq!(lines[0]["target"], "omniroute::logging::tests");
        assert_eq!((&lines[1]["truncated"], &lines[1]["level"]), (&true.into(), &"warn".into()));
        let length = |text: &Value| text.as_str().expect("text").len();
        assert_eq!(length(&lines[1]["message"]), MAX_MESSAGE + '…'.len_utf8());
        assert_eq!(length(&lines[1]["fields"]["long"]), MAX_VALUE + '…'.len_utf8());
    }

    #[test]
    fn what_is_kept_out_is_not_even_made() {
        let console = Arc::new(Console::new(1));
        let log =
            tracing_subscriber::registry().with(EnvFilter::new("warn")).with(ToConsole(console.clone()));
        let made = std::cell::Cell::new(0);
        tracing::subscriber::with_default(log, || {
            for _ in 0..1_000 {
                tracing::info!(
                    value = {
                        made.set(made.get() + 1);
                        1
                    },
                    "nobody wants it"
                );
            }
            assert!(!tracing::enabled!(Level::INFO) && tracing::enabled!(Level::WARN));
        });
        assert_eq!((made.get(), tail(&console).len()), (0, 0));
    }
}
