//! A program under measurement: started, watched through `/proc`, ended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::time::{now, sleep};
use crate::{Outcome, folder};

/// The longest time for a program to end when asked.
const END_MAX: Duration = Duration::from_secs(5);
/// Ticks a second in `/proc`, the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A running program. Dropping it ends the program.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts `command` with `arguments`; its output goes to `target/bench/<name>.log`.
    pub(crate) fn start(name: &str, mut command: Command, arguments: &[&str]) -> Outcome<Self> {
        let log = std::fs::File::create(folder::scratch()?.join(format!("{name}.log")))?;
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        Ok(Self { child, lines: BufReader::new(stdout) })
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err("the program ended; its log is in target/bench".into());
        }
        Ok(line)
    }

    /// Its process and all descendants.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut index = 0;
        while let Some(id) = found.get(index) {
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            let children = children.unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|one| one.parse::<u32>().ok()));
            index += 1;
        }
        found
    }

    /// Its cost so far.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for id in self.processes() {
            usage.add(&Path::new("/proc").join(id.to_string()));
        }
        usage
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let begun = now();
        while begun.elapsed() < END_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program's cost: all its processes together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds of processor time.
    pub(crate) cpu_s: f64,
    /// The part of it that the kernel did not take.
    pub(crate) user_s: f64,
    /// Resident memory.
    pub(crate) rss_kib: f64,
    /// Resident memory, with shared pages divided among their users.
    pub(crate) pss_kib: f64,
    /// The peak of resident memory.
    pub(crate) peak_kib: f64,
    /// The number of times that a thread went to sleep.
    pub(crate) sleeps: f64,
    /// Threads.
    pub(crate) threads: f64,
}

impl Usage {
    fn add(&mut self, proc: &Path) {
        let read = |what: &str| std::fs::read_to_string(proc.join(what)).unwrap_or_default();
        let stat = read("stat");
        let fields: Vec<f64> =
            stat.rsplit(") ").next().unwrap_or_default().split(' ').map(to_number).collect();
        // utime and stime, counted from the state.
        self.cpu_s += fields.get(11..13).map_or(0.0, |both| both.iter().sum::<f64>()) / TICKS;
        self.user_s += fields.get(11).copied().unwrap_or(0.0) / TICKS;
        self.pss_kib += field(&read("smaps_rollup"), "Pss:");
        let status = read("status");
        self.rss_kib += field(&status, "VmRSS:");
        self.peak_kib += field(&status, "VmHWM:");
        self.threads += field(&status, "Threads:");
        let tasks = std::fs::read_dir(proc.join("task")).into_iter().flatten().flatten();
        for task in tasks {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            self.sleeps += field(&status, "voluntary_ctxt_switches:");
        }
    }
}

fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()).map_or(0.0, to_number)
}

fn to_number(text: &str) -> f64 {
    text.parse().unwrap_or(0.0)
}

/// Runs a program to its end; returns its output.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?}: {}\n{said}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
