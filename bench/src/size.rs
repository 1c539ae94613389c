//! evertoken's cost at rest: memory, wake-ups, the time to start, the binary, the build.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::mock::Mock;
use crate::process::{Running, output};
use crate::proxies::{Kind, Setting, start};
use crate::report::Figures;
use crate::streams::{self, Shape};
use crate::time::{now, sleep};
use crate::{Outcome, Plan, folder};

/// The time for which an idle process is watched.
const IDLE: Duration = Duration::from_mins(1);
/// From the end of a burst until its memory is measured again.
const AFTER_BURST: Duration = Duration::from_secs(66);
/// The number of timed starts.
const STARTS: usize = 21;

/// An idle evertoken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Idle {
    /// Resident memory.
    pub(crate) rss_kib: f64,
    /// The same, with shared pages divided.
    pub(crate) pss_kib: f64,
    /// The number of times that a thread woke up, in half a minute.
    pub(crate) wakes_per_30s: f64,
    /// Threads.
    pub(crate) threads: f64,
}

/// Has the kernel read `program` from the disk again, as after the start of a machine. What it has just written, it
/// keeps in larger pieces, and counts whole pieces as resident.
fn forget(program: &Path) -> Outcome<()> {
    let file = File::open(program)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// The memory of an evertoken around a burst of streams over TLS to the provider, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Burst {
    /// After one stream.
    pub(crate) before: f64,
    /// While all are open.
    pub(crate) during: f64,
    /// When the workers have ended and the kept connections are closed.
    pub(crate) after: f64,
}

/// Has an evertoken pass on one stream, and then so many at once.
pub(crate) fn burst(kind: Kind, streams: usize, mock: &Mock) -> Outcome<Burst> {
    forget(&kind.program()?)?;
    let subject = start(kind, mock, Setting { with_tls: true, ..Setting::default() })?;
    let running = subject.running.as_ref().ok_or("it runs")?;
    let mut shape = Shape { streams: 1, events: 15, gap_ms: 200 };
    streams::run(subject.address, shape, || {})?;
    let before = running.usage().rss_kib;
    shape.streams = streams;
    let mut during = 0.0;
    let delays = streams::run(subject.address, shape, || during = running.usage().rss_kib)?;
    if delays.intact != streams {
        return Err(format!("{} of {streams} streams are intact", delays.intact).into());
    }
    sleep(AFTER_BURST);
    Ok(Burst { before, during, after: running.usage().rss_kib })
}

/// Watches an idle evertoken.
pub(crate) fn idle(kind: Kind, plan: &Plan, mock: &Mock) -> Outcome<Idle> {
    forget(&kind.program()?)?;
    let subject = start(kind, mock, Setting::default())?;
    let running = subject.running.as_ref().ok_or("it runs")?;
    // The connection that waited for its start is closed by then.
    sleep(Duration::from_secs(if plan.is_short { 11 } else { 15 }));
    let time = if plan.is_short { Duration::from_secs(30) } else { IDLE };
    let before = running.usage();
    sleep(time);
    let after = running.usage();
    Ok(Idle {
        rss_kib: after.rss_kib,
        pss_kib: after.pss_kib,
        wakes_per_30s: (after.sleeps - before.sleeps) * 30.0 / time.as_secs_f64(),
        threads: after.threads,
    })
}

/// Milliseconds from the start of the process to its log line that it listens.
pub(crate) fn starts() -> Outcome<Figures> {
    let folder = folder::scratch()?.join("start");
    std::fs::create_dir_all(&folder)?;
    let config = format!(
        "settings: {{port: 0, state_dir: \"{}\"}}\nproviders:\n  - {{name: P, type: anthropic, base_url: \
         \"https://api.example.com\", auth_value: token}}\n",
        folder.display()
    );
    std::fs::write(folder.join("providers.yaml"), config)?;
    let mut figures = Figures::default();
    for _ in 0..STARTS {
        let mut command = Command::new("sh");
        // The log is on stderr.
        command.current_dir(&folder).args(["-c", "exec \"$0\" run 2>&1"]).arg(folder::evertoken());
        let begun = now();
        let mut running = Running::start("start", command, &[])?;
        while !running.line()?.contains("Listening on") {}
        figures.0.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(figures)
}

/// The size of the release binary, and of the static one.
pub(crate) fn binaries() -> Outcome<[f64; 2]> {
    let bytes = |path: std::path::PathBuf| -> Outcome<f64> {
        Ok(f64::from(u32::try_from(std::fs::metadata(path)?.len())?))
    };
    Ok([bytes(folder::evertoken())?, bytes(folder::static_evertoken()?)?])
}

/// Seconds of a release build from nothing, with the crates already downloaded.
pub(crate) fn build() -> Outcome<f64> {
    let target = folder::scratch()?.join("clean-build");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    let begun = now();
    output(
        Command::new("cargo")
            .current_dir(folder::root())
            .args(["build", "--release", "--locked", "--bin", "evertoken", "--target-dir"])
            .arg(&target),
    )?;
    let took = begun.elapsed().as_secs_f64();
    std::fs::remove_dir_all(&target)?;
    Ok(took)
}
