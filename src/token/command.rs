//! Runs a `token_command`: without a shell, in a process group of its own, with a limit of time and of output.
//!
//! The process group ends with the command, however the command ends, so that nothing that it started stays behind or
//! keeps its output open. A program that leaves its group (`setsid`) stays, as with a shell.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::clock::Deadline;
use crate::config::TokenCommand;
use crate::shortage::Shortage;
use crate::token::command::stderr_line::first_line;
use crate::token::grant::{Failure, TOKEN_ANSWER_MAX_BYTES};

pub(crate) mod output;
pub(crate) mod program;
mod stderr_line;

/// The longest time for a command.
pub(crate) const COMMAND_MAX: Duration = Duration::from_secs(30);
/// The time between two looks at the command and at a call to end it.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// The longest wait for a killed command. A program of another user (`sudo`) can't be killed.
const KILLED_WAIT_MAX: Duration = Duration::from_millis(500);
/// The bytes of the standard error that are kept.
const STDERR_KEPT_MAX_BYTES: usize = 4 * 1024;
/// The bytes of one read.
const READ_BYTES: usize = 16 * 1024;
/// The most reads of each stream after the command's end: a pipe's size, many times over.
const LAST_READS_MAX: usize = 256;

/// The commands of this process.
static GROUPS: Mutex<Groups> = Mutex::new(Groups { running: Vec::new(), is_closed: false });

struct Groups {
    /// The process groups of the commands that run now.
    running: Vec<Pid>,
    /// True once this process ends: a command that was just started is killed too.
    is_closed: bool,
}

/// The output of a command that ended well.
pub(crate) struct Printed {
    pub(crate) stdout: Vec<u8>,
    /// The first line of its standard error, without secrets.
    pub(crate) said: Option<String>,
}

/// The reason why a command was ended.
enum CommandCut {
    CalledOff,
    TooLate,
    TooLong,
    Unreadable(io::Error),
}

/// Kills all commands, for a process that ends: those that run, and those that start from now on. Returns true if any
/// ran.
pub(crate) fn kill_all() -> bool {
    let mut groups = groups();
    groups.is_closed = true;
    let had_any = !groups.running.is_empty();
    groups.running.drain(..).for_each(kill);
    had_any
}

fn groups() -> MutexGuard<'static, Groups> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(group: Pid) {
    // The processes of a group may have ended, or belong to another user.
    let _ = kill_process_group(group, Signal::KILL);
}

/// Runs `command` to its end, for at most `allowed`, and ends it early when `is_called_off` says so.
pub(crate) fn run(
    command: &TokenCommand,
    allowed: Duration,
    is_called_off: &dyn Fn() -> bool,
) -> Result<Printed, Failure> {
    let mut running = RunningCommand::start(command)?;
    let cut = running.attend(Deadline::after(allowed), is_called_off).err();
    let status = running.end();
    let OutputStreams { stdout, stderr } = std::mem::take(&mut running.streams);
    let said = first_line(&stderr.kept, &secrets_of(command, &stdout.kept));
    let with_said = |what: &str| match &said {
        Some(said) => Failure::of_command(format!("{what}: {said}")),
        None => Failure::of_command(what),
    };
    match (cut, status) {
        (Some(CommandCut::CalledOff), _) => {
            Err(Failure::of_command("the token_command was called off"))
        }
        (Some(CommandCut::TooLate), _) => {
            let seconds = allowed.as_secs_f64();
            Err(with_said(&format!(
                "the token_command did not end within {seconds} s and was killed"
            )))
        }
        (Some(CommandCut::TooLong), _) => {
            Err(with_said("the token_command printed more than 1 MiB and was killed"))
        }
        (Some(CommandCut::Unreadable(error)), _) => {
            Err(with_said(&format!("the output of the token_command can't be read ({error})")))
        }
        (None, Some(status)) if status.success() => Ok(Printed { stdout: stdout.kept, said }),
        (None, status) => Err(with_said(&ended_badly(status))),
    }
}

fn ended_badly(status: Option<ExitStatus>) -> String {
    let code = status.and_then(|status| status.code());
    match (code, status.and_then(|status| status.signal())) {
        (Some(code), _) => format!("the token_command ended with exit code {code}"),
        (None, Some(signal)) => format!("the token_command was ended by signal {signal}"),
        (None, None) => "the token_command ended in an unknown way".to_owned(),
    }
}

/// Texts that must not be logged: the command's own variables, and what it printed.
fn secrets_of(command: &TokenCommand, stdout: &[u8]) -> Vec<String> {
    let of_command = command.variables.iter().filter(|(name, _)| !is_plain(name));
    let mut all: Vec<String> = of_command.map(|(_, value)| value.expose().to_owned()).collect();
    all.extend(std::str::from_utf8(stdout).map(|text| text.trim().to_owned()));
    all
}

/// True for a variable that every command gets, and that is no secret.
fn is_plain(name: &str) -> bool {
    matches!(name, "PATH" | "HOME" | "LANG" | "LANGUAGE" | "TZ") || name.starts_with("LC_")
}

/// A running command.
struct RunningCommand {
    child: Child,
    group: Pid,
    streams: OutputStreams,
}

#[derive(Default)]
struct OutputStreams {
    stdout: StreamStart,
    stderr: StreamStart,
}

/// The kept start of a stream.
#[derive(Default)]
struct StreamStart {
    kept: Vec<u8>,
    has_ended: bool,
}

impl RunningCommand {
    fn start(command: &TokenCommand) -> Result<Self, Failure> {
        let failed =
            |why: String| Failure::of_command(format!("the token_command can't be run: {why}"));
        let program = program::find(command).map_err(|error| failed(error.to_string()))?;
        let variables = command.variables.iter().map(|(name, value)| (name, value.expose()));
        let mut start = Command::new(&program);
        start
            .arg0(&command.program)
            .args(&command.arguments)
            .env_clear()
            .envs(variables)
            .current_dir(&command.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = start.spawn().map_err(|error| match Shortage::of(&error) {
            Some(shortage) => Failure::short(shortage),
            None => failed(program::why_not_started(command, &program, &error)),
        })?;
        let group = Pid::from_child(&child);
        let mut groups = groups();
        if groups.is_closed {
            kill(group);
        } else {
            groups.running.push(group);
        }
        Ok(Self { child, group, streams: OutputStreams::default() })
    }

    /// Reads the output until the command ends.
    fn attend(
        &mut self,
        deadline: Deadline,
        is_called_off: &dyn Fn() -> bool,
    ) -> Result<(), CommandCut> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (Some(mut stdout), Some(mut stderr)) = (stdout, stderr) else { return Ok(()) };
        ioctl_fionbio(&stdout, true).map_err(|error| CommandCut::Unreadable(error.into()))?;
        ioctl_fionbio(&stderr, true).map_err(|error| CommandCut::Unreadable(error.into()))?;
        loop {
            if is_called_off() {
                return Err(CommandCut::CalledOff);
            }
            if deadline.has_passed() {
                return Err(CommandCut::TooLate);
            }
            let has_ended = self.has_ended();
            // After the end, nothing more is awaited: a program that was left behind may keep the pipes open.
            let reads = if has_ended { LAST_READS_MAX } else { 1 };
            let OutputStreams { stdout: out, stderr: err } = &mut self.streams;
            out.read(&mut stdout, reads, TOKEN_ANSWER_MAX_BYTES + 1)?;
            err.read(&mut stderr, reads, STDERR_KEPT_MAX_BYTES)?;
            if out.kept.len() > TOKEN_ANSWER_MAX_BYTES {
                return Err(CommandCut::TooLong);
            }
            if has_ended {
                return Ok(());
            }
            let open = [(&*out, stdout.as_fd()), (&*err, stderr.as_fd())];
            wait_for(open.into_iter().filter(|(kept, _)| !kept.has_ended).map(|(_, pipe)| pipe));
        }
    }

    /// True if the command has ended. It is not reaped, so that its process group stays its own.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that there is nothing to wait for.
        waitid(WaitId::Pid(self.group), options).map_or(true, |status| status.is_some())
    }

    /// Ends the process group and reaps the command; None if it does not end.
    fn end(&mut self) -> Option<ExitStatus> {
        kill(self.group);
        let deadline = Deadline::after(KILLED_WAIT_MAX);
        while !self.has_ended() && !deadline.has_passed() {
            wait_for([].into_iter());
        }
        groups().running.retain(|group| *group != self.group);
        self.child.try_wait().ok().flatten()
    }
}

impl StreamStart {
    /// Reads from `pipe` what is there, with at most `reads` reads; keeps at most `kept_max` bytes in all.
    fn read(
        &mut self,
        pipe: &mut dyn Read,
        reads: usize,
        kept_max: usize,
    ) -> Result<(), CommandCut> {
        let mut bytes = [0; READ_BYTES];
        for _ in 0..reads {
            if self.has_ended {
                break;
            }
            match pipe.read(&mut bytes) {
                Ok(0) => self.has_ended = true,
                Ok(count) => {
                    let room = kept_max - self.kept.len();
                    self.kept.extend_from_slice(&bytes[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CommandCut::Unreadable(error)),
            }
        }
        Ok(())
    }
}

/// Waits until one of these pipes has something to read, at most [`LOOK_EVERY`].
fn wait_for<'a>(pipes: impl Iterator<Item = BorrowedFd<'a>>) {
    let mut pipes: Vec<PollFd<'_>> =
        pipes.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)).collect();
    // The caller looks again in any case.
    let _ = poll(&mut pipes, Some(&LOOK_EVERY));
}

#[cfg(test)]
mod tests;
