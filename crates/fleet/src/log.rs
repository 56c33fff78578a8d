//! What the server and the agent log, on the standard error stream: lines for people, or JSON for programs.
//!
//! Events are logged with [`tracing`]. The message of an event is a sentence that says it all; its fields are what a program looks
//! for.

use clap::ValueEnum;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How it is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A sentence for whatever somebody should know. A journal adds the time.
    #[default]
    Text,
    /// A JSON object on a line of its own for each event, and for each request.
    Json,
}

impl LogFormat {
    /// Logs in this format from now on. Only the first call in a process has an effect.
    pub(crate) fn start(self) {
        let _ = tracing_subscriber::registry().with(self.to(std::io::stderr)).try_init();
    }

    fn to<W>(self, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        // Others, such as the driver of the database, are heard if something is wrong.
        let from = |level| {
            Targets::new().with_default(LevelFilter::WARN).with_target(env!("CARGO_CRATE_NAME"), level)
        };
        let lines = tracing_subscriber::fmt::layer().with_writer(writer);
        match self {
            Self::Text => lines.event_format(Sentences).with_filter(from(Level::INFO)).boxed(),
            Self::Json => {
                let objects = lines.json().flatten_event(true).with_span_list(false);
                objects.with_filter(from(Level::DEBUG)).boxed()
            }
        }
    }
}

/// Writes the message of an event, after a word for how bad it is.
struct Sentences;

impl<S, N> FormatEvent<S, N> for Sentences
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        })?;
        let mut sentence = Sentence(String::new());
        event.record(&mut sentence);
        writeln!(writer, "{}", sentence.0)
    }
}

/// The message of an event, in one line.
struct Sentence(String);

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}").replace(char::is_control, " ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::io::{Read as _, Seek as _};
    use std::sync::Arc;

    /// What is logged in this format.
    fn logged(format: LogFormat) -> String {
        let mut file = tempfile::tempfile().unwrap();
        let lines = format.to(Arc::new(file.try_clone().unwrap()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let span = tracing::debug_span!("request", device = tracing::field::Empty);
            let _inside = span.enter();
            span.record("device", "desk-1");
            tracing::info!(task = 7, "task 7 of \u{1b}[31mdesk\n1 is over");
            tracing::warn!("the disk is full");
            tracing::debug!(status = 200, "request");
            tracing::info!(target: "sqlx", "of no interest");
            tracing::error!(target: "sqlx", "of interest");
        });
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn people_read_sentences_in_one_line_each() {
        let lines = "task 7 of  [31mdesk 1 is over\nwarning: the disk is full\nerror: of interest\n";
        assert_eq!(logged(LogFormat::Text), lines);
    }

    #[test]
    fn programs_read_objects_with_the_fields_and_whose_request_it_is() {
        let text = logged(LogFormat::Json);
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
        assert_eq!(levels, ["INFO", "WARN", "DEBUG", "ERROR"]);
        assert_eq!((&lines[0]["task"], &lines[2]["status"]), (&7.into(), &200.into()));
        assert_eq!(lines[0]["message"], "task 7 of \u{1b}[31mdesk\n1 is over");
        assert!(lines[0]["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{text}");
        assert!(lines.iter().all(|line| line["span"]["device"] == "desk-1"), "{text}");
    }
}
