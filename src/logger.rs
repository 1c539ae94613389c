//! The log on stderr: lines as text or JSON, and the journal's priorities. A separate thread writes them, so that
//! logging never delays anything else.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::visible::visible;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

mod backlog;
mod object;
mod scratch;
mod stamp;
mod writer;

pub(crate) use scratch::with_text;
use scratch::{Line, with_line};
pub(crate) use stamp::push_fraction;
use writer::Writer;

/// The longest wait of the exiting process for a blocked stderr.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// The log of this process; unset before it has begun.
static LOG: OnceLock<ProcessLog> = OnceLock::new();

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `[LEVEL] message`.
    #[default]
    Text,
    /// `{"time", "level", "message", …}`, one object per line, with the facts of a request as fields.
    Json,
}

/// The command line's options for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The form of a line.
    pub format: Format,
    /// Warnings and errors only.
    pub is_quiet: bool,
}

/// Makes lines. The callers keep secrets out of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineForm {
    format: Format,
    to_journal: bool,
}

impl LineForm {
    /// For `format`. With `to_journal`, lines have a priority such as `<6>` (see sd-daemon(3)), and text has no
    /// timestamp, because the journal adds its own.
    pub(crate) const fn new(format: Format, to_journal: bool) -> Self {
        Self { format, to_journal }
    }

    /// Appends the line for a record, without its end, to `line`. The text of the record is written where it stays,
    /// because each request has a line.
    fn append(self, record: &Record<'_>, now: Timestamp, line: &mut Line) {
        if self.format == Format::Json {
            if self.to_journal {
                line.text.push_str(priority(record.level()));
            }
            return object::append(record, now, &mut line.text);
        }
        self.append_text(record.level(), now, line, |text| {
            let _ = text.write_fmt(*record.args());
        });
    }

    /// The same for a line of text, to which `write` appends the message.
    fn append_text(
        self,
        level: Level,
        now: Timestamp,
        Line { text, stamp }: &mut Line,
        write: impl FnOnce(&mut String),
    ) {
        if self.to_journal {
            text.push_str(priority(level));
        } else {
            stamp.append(now, text);
            text.push(' ');
        }
        text.push_str(in_brackets(level));
        let before = text.len();
        write(text);
        if let Cow::Owned(shown) = visible(&text[before..]) {
            text.replace_range(before.., &shown);
        }
    }

    /// The line for a record, without its end.
    pub(crate) fn of_record(self, record: &Record<'_>, now: Timestamp) -> String {
        let mut line = Line::default();
        self.append(record, now, &mut line);
        line.text
    }

    /// The line for a problem that keeps the log from beginning, such as one in the configuration: its text without a
    /// level.
    pub(crate) fn of_problem(self, problem: &str, now: Timestamp) -> String {
        match self.format {
            Format::Text if self.to_journal => format!("{}{problem}", priority(Level::Error)),
            Format::Text => problem.to_owned(),
            Format::Json => {
                let problem = format_args!("{problem}");
                self.of_record(&Record::builder().level(Level::Error).args(problem).build(), now)
            }
        }
    }
}

/// Begins the log. `RUST_LOG`, given as `filters`, overrides both `level` and `--quiet`.
pub(crate) fn start(
    lines: LineForm,
    level: LevelFilter,
    options: Options,
    filters: Option<&str>,
    clock: Clock,
) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(if options.is_quiet { level.min(LevelFilter::Warn) } else { level });
    if let Some(filters) = filters {
        builder.parse_filters(filters);
    }
    let of_writer = clock.clone();
    // If the system has no thread left, the logging thread writes each line itself.
    let writer = Writer::start(Stderr, move |count| notice(lines, count, of_writer.wall())).ok();
    let takes_texts = lines.format == Format::Text && !filters.is_some_and(searches);
    let filter = builder.build();
    let most = filter.filter();
    let log = LOG.get_or_init(|| ProcessLog { filter, takes_texts, lines, clock, writer });
    if log::set_logger(log).is_ok() {
        log::set_max_level(most);
    }
    // The default hook writes several lines, which are neither JSON nor have a priority.
    std::panic::set_hook(Box::new(|panic| {
        log::error!("A thread {panic}");
        flush();
    }));
}

/// Sorts records out by their level and `RUST_LOG`, and queues the lines of the others.
struct ProcessLog {
    /// Decides alone: its own way from a record to a writer takes longer than the making of the line.
    filter: env_logger::Logger,
    /// A message may come without a record.
    takes_texts: bool,
    lines: LineForm,
    clock: Clock,
    writer: Option<Writer>,
}

impl Log for ProcessLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) && is_wanted(record.target(), record.level()) {
            self.write(!may_wait(record), |line| {
                self.lines.append(record, self.clock.wall(), line);
            });
        }
    }

    fn flush(&self) {}
}

impl ProcessLog {
    fn write(&self, is_urgent: bool, make: impl FnOnce(&mut Line)) {
        with_line(|line| {
            make(line);
            if let Some(writer) = &self.writer {
                writer.push(&line.text, is_urgent);
            } else {
                line.text.push('\n');
                let _ = Stderr.write_all(line.text.as_bytes());
            }
        });
    }
}

/// Writes a line at `level`, which is enabled and none of a warning, with the message that `write` appends. Returns false if
/// the log needs a record instead, whose facts are fields of their own. Without a record, a request's line takes half the
/// instructions.
pub(crate) fn write_text(level: Level, write: impl FnOnce(&mut String)) -> bool {
    let Some(log) = LOG.get().filter(|log| log.takes_texts) else { return false };
    log.write(false, |line| log.lines.append_text(level, log.clock.wall(), line, write));
    true
}

/// True if `RUST_LOG` asks for a text within messages, which `env_logger` looks for in a record.
fn searches(filters: &str) -> bool {
    filters.contains('/')
}

/// Libraries log URLs with their queries, which may hold keys, and rustls warns of whatever a peer sends, as often as it
/// does.
fn is_wanted(target: &str, level: Level) -> bool {
    let is_of = |library: &str| target.starts_with(library);
    is_of("evertoken") || level == Level::Error || (level == Level::Warn && !is_of("rustls"))
}

/// True if a line may wait for others, as a request's line may. Lines about tokens are rare, and may be the last
/// known facts before a kill.
fn may_wait(record: &Record<'_>) -> bool {
    record.level() > Level::Warn && record.target().starts_with("evertoken::proxy")
}

/// The line that `count` lines were dropped.
fn notice(lines: LineForm, count: u64, now: Timestamp) -> String {
    let message = format_args!("{count} log lines were dropped, since stderr took no more");
    let record = Record::builder().level(Level::Warn).target("evertoken").args(message).build();
    lines.of_record(&record, now)
}

/// Waits until the lines so far are written, for at most half a second, before the process ends.
pub(crate) fn flush() {
    if let Some(writer) = writer() {
        writer.flush(FLUSH_MAX);
    }
}

/// The number of lines dropped since the start because stderr was blocked.
pub(crate) fn dropped_lines() -> u64 {
    writer().map_or(0, Writer::dropped_lines)
}

fn writer() -> Option<&'static Writer> {
    LOG.get()?.writer.as_ref()
}

/// The process's stderr without the standard library's lock, which a hanging write would hold.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(stderr.as_fd(), bytes) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                // Some supervisors hand over a non-blocking pipe.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// True if stderr is the journal: `stream` is `$JOURNAL_STREAM`, which systemd sets to the device and inode of its
/// socket. A child with another stderr inherits the variable too, so this compares it with stderr.
pub(crate) fn goes_to_journal(stream: Option<&str>) -> bool {
    let own = || -> io::Result<(u64, u64)> {
        let stderr = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let metadata = stderr.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    };
    // A closed stderr is not the journal.
    stream.is_some_and(|stream| own().is_ok_and(|own| is_stream(stream, own)))
}

/// True if `stream`, as `DEVICE:INODE` in decimal, names this file.
fn is_stream(stream: &str, (device, inode): (u64, u64)) -> bool {
    let named = stream.split_once(':');
    named.is_some_and(|(dev, ino)| (dev.parse(), ino.parse()) == (Ok(device), Ok(inode)))
}

/// The level as it stands before a message.
const fn in_brackets(level: Level) -> &'static str {
    match level {
        Level::Error => "[ERROR] ",
        Level::Warn => "[WARN] ",
        Level::Info => "[INFO] ",
        Level::Debug => "[DEBUG] ",
        Level::Trace => "[TRACE] ",
    }
}

/// syslog's priorities, in the form of sd-daemon(3).
const fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use log::kv::{self, Value as KeyedValue};
    use serde_json::Value;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_478_400_123);

    fn line(lines: LineForm, level: Level, message: &str) -> String {
        lines
            .of_record(&Record::builder().level(level).args(format_args!("{message}")).build(), NOW)
    }

    #[test]
    fn libraries_say_neither_urls_nor_what_peers_send() {
        for (target, level, expected) in [
            ("evertoken::app", Level::Trace, true),
            ("ureq", Level::Warn, true),
            ("ureq", Level::Info, false),
            ("rustls::error", Level::Error, true),
            // "Illegal SNI extension", "Sending warning alert": as often as a peer likes.
            ("rustls::msgs::handshake", Level::Warn, false),
        ] {
            assert_eq!(is_wanted(target, level), expected, "{target} {level}");
        }
    }

    #[test]
    fn lines_of_text() {
        let plain = LineForm::new(Format::Text, false);
        let journal = LineForm::new(Format::Text, true);
        assert_eq!(line(plain, Level::Info, "Stopped"), "2026-11-24T00:00:00.123Z [INFO] Stopped");
        for (level, expected) in [
            (Level::Error, "<3>[ERROR] x"),
            (Level::Warn, "<4>[WARN] x"),
            (Level::Info, "<6>[INFO] x"),
            (Level::Debug, "<7>[DEBUG] x"),
            (Level::Trace, "<7>[TRACE] x"),
        ] {
            assert_eq!(line(journal, level, "x"), expected);
        }
        assert_eq!(plain.of_problem("a.yaml:1:1: wrong", NOW), "a.yaml:1:1: wrong");
        assert_eq!(journal.of_problem("a.yaml:1:1: wrong", NOW), "<3>a.yaml:1:1: wrong");
    }

    #[test]
    fn a_message_is_one_line_whatever_it_holds() {
        let hostile = "a\n<0>[ERROR] b\r\u{1b}[2J\u{85}é \"q\"";
        let text = line(LineForm::new(Format::Text, true), Level::Info, hostile);
        assert_eq!(text, "<6>[INFO] a\\n<0>[ERROR] b\\r\\u{1b}[2J\\u{85}é \"q\"");
        let json = line(LineForm::new(Format::Json, false), Level::Info, hostile);
        assert!(!json.contains(['\n', '\r', '\u{1b}']), "{json}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], hostile);
    }

    #[test]
    fn lines_of_json() {
        let none: Option<u16> = None;
        let fields: [(&str, KeyedValue<'_>); 6] = [
            ("path", KeyedValue::from("/a\"b")),
            ("status", KeyedValue::from(200_u16)),
            ("offset", KeyedValue::from(-3_i64)),
            ("seconds", KeyedValue::from(1.5_f64)),
            ("is_cut", KeyedValue::from(true)),
            ("provider", kv::ToValue::to_value(&none)),
        ];
        let record = Record::builder()
            .level(Level::Info)
            .args(format_args!("m"))
            .key_values(&fields)
            .build();
        let object = r#"{"time":"2026-11-24T00:00:00.123Z","level":"INFO","message":"m","path":"/a\"b","status":200,"offset":-3,"seconds":1.5,"is_cut":true,"provider":null}"#;
        assert_eq!(LineForm::new(Format::Json, false).of_record(&record, NOW), object);
        let in_journal = LineForm::new(Format::Json, true).of_record(&record, NOW);
        assert_eq!(in_journal, format!("<6>{object}"));
        assert_eq!(
            LineForm::new(Format::Json, false).of_problem("wrong", NOW),
            r#"{"time":"2026-11-24T00:00:00.123Z","level":"ERROR","message":"wrong"}"#
        );
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        for (stream, expected) in [
            ("8:12345", true),
            ("8:12346", false),
            ("9:12345", false),
            ("8:", false),
            ("12345", false),
            ("", false),
            ("8:12345:1", false),
        ] {
            assert_eq!(is_stream(stream, (8, 12345)), expected, "{stream}");
        }
    }
}
