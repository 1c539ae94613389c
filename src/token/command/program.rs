//! Finds the program of a `token_command`, as a shell does.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::config::TokenCommand;

/// The reason why there is no program to run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoProgram {
    #[error("there is no program '{program}' in PATH ({path}){hint}")]
    NotInPath { program: String, path: String, hint: &'static str },
    #[error("there is no file {0}")]
    NoFile(String),
    #[error("{0} is no program but a folder or another kind of file")]
    NoRegularFile(String),
    #[error("{0} may not be executed by this user (chmod +x makes a file executable)")]
    NotExecutable(String),
    #[error("{0} can't be reached: {1}")]
    Unreachable(String, String),
}

/// A program with blanks in its name is most often a whole command.
const SPLIT_IT: &str =
    "; write each word of the command as an element of its own: [gcloud, auth, print-access-token]";
const NAME_IT: &str = "; write its whole path, or set PATH in token_command_env";

/// The path of the program of `command`: looked up in its PATH, unless it has a slash; a relative path begins at the
/// command's folder.
pub(crate) fn find(command: &TokenCommand) -> Result<PathBuf, NoProgram> {
    let program = &command.program;
    if program.contains('/') {
        let path = command.folder.join(program);
        return usable(&path).map(|()| path);
    }
    let search = command.variable("PATH").map_or("", |path| path.expose());
    let mut not_usable = None;
    for folder in search.split(':') {
        // An empty element is the working folder, as for a shell.
        let path = command.folder.join(folder).join(program);
        match usable(&path) {
            Ok(()) => return Ok(path),
            Err(NoProgram::NotExecutable(path)) => {
                not_usable.get_or_insert(NoProgram::NotExecutable(path));
            }
            Err(_) => {}
        }
    }
    let hint = if program.contains(' ') { SPLIT_IT } else { NAME_IT };
    Err(not_usable.unwrap_or_else(|| NoProgram::NotInPath {
        program: program.clone(),
        path: search.to_owned(),
        hint,
    }))
}

fn usable(path: &Path) -> Result<(), NoProgram> {
    let shown = || path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NoProgram::NoFile(shown()),
        _ => NoProgram::Unreachable(shown(), error.to_string()),
    })?;
    if !metadata.is_file() {
        return Err(NoProgram::NoRegularFile(shown()));
    }
    access(path, Access::EXEC_OK).map_err(|_| NoProgram::NotExecutable(shown()))
}

/// The reason why `program`, which exists, was not started.
pub(super) fn why_not_started(command: &TokenCommand, program: &Path, error: &io::Error) -> String {
    let (program, folder) = (program.display(), &command.folder);
    match error.kind() {
        io::ErrorKind::NotFound if !folder.is_dir() => {
            format!("its working folder {} is gone", folder.display())
        }
        io::ErrorKind::NotFound => {
            format!("the interpreter that the first line of {program} names does not exist")
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            format!("{program} is neither a program nor a script with #! in its first line")
        }
        _ => format!("{program}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::token::command::tests::command;

    fn program_in(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_program_is_looked_up_in_the_commands_own_path_and_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::create_dir(folder.join("bin")).unwrap();
        let tool = program_in(&folder.join("bin"), "tool", 0o755);
        let plain = program_in(folder, "plain", 0o644);
        let find = |program: &str, path: &str| {
            let found = find(&TokenCommand {
                folder: folder.to_owned(),
                ..command(&[program], &[("PATH", path)])
            });
            found.map_err(|error| error.to_string())
        };
        let bin = folder.join("bin").display().to_string();
        assert_eq!(find("tool", &format!("/none:{bin}")), Ok(tool.clone()));
        assert_eq!(find("tool", "bin"), Ok(tool.clone()), "a relative folder");
        assert_eq!(find("./bin/tool", "/none"), Ok(folder.join("./bin/tool")));
        assert_eq!(find(tool.to_str().unwrap(), ""), Ok(tool));
        let cases = [
            ("none", "there is no program 'none' in PATH (/none); write its whole path"),
            ("gcloud auth", "write each word of the command as an element of its own"),
            ("./none", "there is no file "),
            ("./plain/x", "there is no file "),
            ("./bin", "is no program but a folder"),
            ("./plain", "may not be executed by this user (chmod +x"),
        ];
        for (program, part) in cases {
            let told = find(program, "/none").unwrap_err();
            assert!(told.contains(part), "{program}: {told}");
        }
        let told = find("plain", folder.to_str().unwrap()).unwrap_err();
        assert!(told.starts_with(plain.to_str().unwrap()) && told.contains("chmod +x"), "{told}");
    }
}
