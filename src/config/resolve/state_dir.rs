//! `settings.state_dir`: the folder for tokens.

use std::path::{Path, PathBuf};

use crate::config::raw::Section;
use crate::config::resolve::sources::Sources;

/// The folder in `state_dir`, else the default one.
pub(super) fn read(section: &Section<'_>, sources: &Sources<'_>) -> PathBuf {
    let written = sources.plain_path(section, "state_dir");
    if let Some(path) = written.filter(|path| !path.as_os_str().is_empty()) {
        return whole_path("'state_dir'", &path, section, sources);
    }
    if let Some(path) = default_state_dir(sources) {
        return whole_path("the state folder", &path, section, sources);
    }
    section.error(
        "state_dir",
        "neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set; say with \
         settings.state_dir where tokens are kept",
    );
    PathBuf::new()
}

/// The absolute path. Tokens in a relative folder are not found if evertoken starts in another folder.
fn whole_path(what: &str, path: &Path, section: &Section<'_>, sources: &Sources<'_>) -> PathBuf {
    let whole = sources.whole(path);
    if whole != path {
        let message = format!(
            "{what} is relative: it is {} here, and another folder where evertoken is started elsewhere; \
             write it absolute",
            whole.display()
        );
        section.warn("state_dir", message);
    }
    whole
}

/// The default folder for tokens.
fn default_state_dir(sources: &Sources<'_>) -> Option<PathBuf> {
    if let Some(given) = sources.variable("STATE_DIRECTORY") {
        // systemd lists several folders with colons between them.
        return given.split(':').next().map(PathBuf::from);
    }
    if let Some(xdg) = sources.variable("XDG_STATE_HOME") {
        return Some(PathBuf::from(xdg).join("evertoken"));
    }
    if sources.is_root {
        return Some(PathBuf::from("/var/lib/evertoken"));
    }
    sources.variable("HOME").map(|home| PathBuf::from(home).join(".local/state/evertoken"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{document, sources};

    #[test]
    fn where_tokens_are_kept() {
        let dir = |variables: &[(&str, &str)], is_root| {
            let variables: Vec<(String, String)> =
                variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let environment = move |name: &str| {
                variables.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone())
            };
            let sources = Sources { environment: &environment, is_root, ..sources() };
            let resolved = resolve(&document("", "auth_type: none"), "f", &sources);
            resolved.ok().map(|(config, _)| config.settings.state_dir)
        };
        let is = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/h");
        assert_eq!(
            dir(&[("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x"), home], true),
            is("/s")
        );
        assert_eq!(dir(&[("XDG_STATE_HOME", "/x"), home], true), is("/x/evertoken"));
        assert_eq!(dir(&[home], true), is("/var/lib/evertoken"));
        assert_eq!(dir(&[home], false), is("/h/.local/state/evertoken"));
        assert_eq!(dir(&[], false), None);
    }

    /// Tokens that a login in one folder stored were not found from another folder.
    #[test]
    fn a_relative_state_folder_is_told_with_its_whole_path() {
        let found = |settings: &str, working_folder| {
            let sources = Sources { working_folder, ..sources() };
            let text = document(settings, "auth_type: none");
            let (config, warnings) = resolve(&text, "f", &sources).unwrap();
            let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            (config.settings.state_dir.display().to_string(), warnings)
        };
        let here = Some(Path::new("/w"));
        for (written, whole) in [("state", "/w/state"), ("./a/./b", "/w/a/b"), ("../s", "/w/../s")]
        {
            let (path, warnings) = found(&format!("state_dir: {written}"), here);
            assert_eq!(path, whole);
            assert_eq!(
                warnings,
                [format!(
                    "f:1:23: warning: 'state_dir' is relative: it is {whole} here, and another folder where \
                     evertoken is started elsewhere; write it absolute"
                )]
            );
        }
        for (settings, path) in [
            ("state_dir: /s", "/s"),
            ("state_dir: ~/s", "/home/u/s"),
            ("port: 1", "/home/u/.local/state/evertoken"),
        ] {
            assert_eq!(found(settings, here), (path.to_owned(), vec![]));
        }
        assert_eq!(found("state_dir: state", None), ("state".to_owned(), vec![]));
    }
}
