//! The place of a unix socket in `settings.listen`: whether `run` could bind it there.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::Access;

use crate::config::ListenAddress;

/// The reason why a socket can't be made at `address`; None for a port.
pub(crate) fn problem_of(address: &ListenAddress) -> Option<String> {
    let ListenAddress::Unix { path, .. } = address else { return None };
    let why = match fs::symlink_metadata(path) {
        // A socket may be that of the running evertoken.
        Ok(found) if found.file_type().is_socket() => return None,
        Ok(_) => {
            "a file stands there that is no socket, and evertoken leaves it alone; write another path".to_owned()
        }
        Err(_) => problem_of_folder(path.parent()?)?,
    };
    Some(format!("{address}: {why}"))
}

/// The reason why no file can be made in `folder`.
fn problem_of_folder(folder: &Path) -> Option<String> {
    let shown = folder.display();
    let why = match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {
            let error = rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
            format!(
                "its folder {shown} can't be written: {}; the user that runs evertoken needs a folder of its own for \
                 the socket",
                io::Error::from(error)
            )
        }
        Ok(_) => format!("{shown} is no folder; write another path"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!(
            "its folder {shown} does not exist: create it, or have the service manager do so (systemd: \
             RuntimeDirectory=)"
        ),
        Err(error) => format!("its folder {shown} can't be used: {error}"),
    };
    Some(why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_judged_by_what_stands_in_its_place_and_by_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        let _listening = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink(at("none"), at("link")).unwrap();
        for (name, part) in [
            ("new", None),
            ("socket", None),
            ("file", Some("a file stands there that is no socket")),
            ("link", Some("a file stands there that is no socket")),
            ("none/s", Some("/none does not exist: create it")),
            ("link/s", Some("/link does not exist: create it")),
            ("file/s", Some("/file is no folder")),
        ] {
            let found = problem_of(&ListenAddress::Unix { path: at(name), mode: 0o600 });
            assert_eq!(found.is_some(), part.is_some(), "{name}: {found:?}");
            let is_told =
                part.is_none_or(|part| found.as_ref().is_some_and(|why| why.contains(part)));
            assert!(is_told, "{name}: {found:?}");
        }
        assert_eq!(problem_of(&ListenAddress::Tcp { host: "::1".into(), port: 1 }), None);
    }
}
