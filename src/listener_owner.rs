//! Finds the process that listens on a port or on a unix socket, as far as the system shows it, and names processes.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use crate::peer;
use crate::platform::{self, PROCESSES};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";
/// The longest process name that is shown.
const NAME_MAX_CHARS: usize = 64;

/// A process, for people and for signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub id: u32,
    /// Its name for itself.
    pub name: String,
}

/// `nginx, process 1234`
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, process {}", self.name, self.id)
    }
}

/// True if the system shows who listens where, as far as this user may see it.
pub(crate) const CAN_FIND: bool = PROCESSES.is_some();

/// The process that listens on `port`, on any address; None if the system does not show it.
pub(crate) fn find(port: u16) -> Option<Process> {
    find_below(Path::new(PROCESSES?), port)
}

/// The process that listens at the other end of a connection over a unix socket; None if the system does not show it.
pub(crate) fn of_connection(stream: &TcpStream) -> Option<Process> {
    let id = peer::of(stream)?.id;
    Some(Process { id, name: name_of(id)? })
}

fn find_below(proc: &Path, port: u16) -> Option<Process> {
    let tables = ["net/tcp", "net/tcp6"].map(|name| fs::read_to_string(proc.join(name)));
    let sockets: HashSet<String> =
        tables.iter().flatten().flat_map(|table| listening(table, port)).collect();
    let processes = fs::read_dir(proc).ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let owners: Vec<u32> = ids.filter(|id| holds(&proc.join(id.to_string()), &sockets)).collect();
    // A service manager that handed over the socket also holds it, and is older.
    let mut id = *owners.iter().max()?;
    // A forked process, such as a worker or one that is about to run another program, is not meant.
    while let Some(parent) = parent_below(proc, id)
        && owners.contains(&parent)
        && program_below(proc, parent) == program_below(proc, id)
    {
        id = parent;
    }
    Some(Process { id, name: name_below(proc, id).unwrap_or_default() })
}

fn program_below(proc: &Path, process: u32) -> Option<PathBuf> {
    fs::read_link(proc.join(format!("{process}/exe"))).ok()
}

fn parent_below(proc: &Path, process: u32) -> Option<u32> {
    let status = fs::read_to_string(proc.join(format!("{process}/status"))).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok().filter(|parent| *parent < process)
}

/// The process's name for itself; None if there is no such process, or it is not visible.
pub(crate) fn name_of(process: u32) -> Option<String> {
    platform::process_name(process).map(|name| shown(&name)).filter(|name| !name.is_empty())
}

fn name_below(proc: &Path, process: u32) -> Option<String> {
    fs::read_to_string(proc.join(format!("{process}/comm"))).ok().map(|name| shown(&name))
}

fn shown(name: &str) -> String {
    let plain = name.trim().chars().filter(|character| !character.is_control());
    plain.take(NAME_MAX_CHARS).collect()
}

/// The links of descriptors to the listening sockets on this port.
fn listening(table: &str, port: u16) -> Vec<String> {
    let ending = format!(":{port:04X}");
    let rows = table.lines().skip(1).filter_map(|row| {
        let fields: Vec<_> = row.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&ending) && *state == LISTENING).then(|| format!("socket:[{inode}]"))
    });
    rows.collect()
}

/// True if the process has one of these sockets.
fn holds(process: &Path, sockets: &HashSet<String>) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn our_own_listener_is_found_and_nobody_elses() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let found = find(port).unwrap();
            assert_eq!(found.id, std::process::id());
            assert_eq!(Some(found.name), name_of(std::process::id()));
            drop(listener);
            assert_eq!(find(port), None);
        }
    }

    #[test]
    fn a_process_is_named_as_it_calls_itself() {
        // Some systems have to be asked by ps, and some machines have no ps that answers.
        let own = std::process::id();
        let ps =
            std::process::Command::new("ps").args(["-o", "comm=", "-p", &own.to_string()]).output();
        if PROCESSES.is_some() || ps.is_ok_and(|output| output.status.success()) {
            let name = fs::read_to_string("/proc/self/comm").unwrap();
            assert_eq!(name_of(own).unwrap(), name.trim());
        }
        assert_eq!(name_of(i32::MAX.unsigned_abs()), None);
        assert_eq!(shown("a\u{7}\n"), "a");
    }

    #[test]
    fn rows_of_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
             1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
             2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n\
             3: broken";
        assert_eq!(listening(table, 8080), ["socket:[4711]"]);
        assert_eq!(listening(table, 80), [""; 0]);
        assert_eq!(listening("", 8080), [""; 0]);
    }

    #[test]
    fn a_process_that_the_listener_forked_is_not_named_in_its_place() {
        let proc = tempfile::tempdir().unwrap();
        let process = |id: u32, parent: u32, exe: &str| {
            let folder = proc.path().join(id.to_string());
            fs::create_dir_all(folder.join("fd")).unwrap();
            symlink("socket:[7]", folder.join("fd/3")).unwrap();
            symlink(exe, folder.join("exe")).unwrap();
            fs::write(folder.join("status"), format!("Name:\tx\nPPid:\t{parent}\n")).unwrap();
            fs::write(folder.join("comm"), format!("of {id}\n")).unwrap();
        };
        fs::create_dir(proc.path().join("net")).unwrap();
        let row = "0: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 0 0 7";
        fs::write(proc.path().join("net/tcp"), format!("head\n{row}\n")).unwrap();
        process(10, 1, "/init");
        process(20, 10, "/server");
        assert_eq!(find_below(proc.path(), 80).unwrap().id, 20, "init handed the socket over");
        process(30, 20, "/server");
        process(40, 30, "/server");
        let found = find_below(proc.path(), 80).unwrap();
        assert_eq!(found.to_string(), "of 20, process 20", "a worker of a worker");
    }

    #[test]
    fn a_folder_that_is_no_proc_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find_below(folder.path(), 80), None);
        assert_eq!(find_below(&folder.path().join("none"), 80), None);
    }
}
