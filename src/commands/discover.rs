//! `evertoken login --discover`: finds out how to log in to a resource, logs in, and prints or writes its entry.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::assemble::issuer_sender;
use crate::cli::{DiscoverOptions, Files};
use crate::clock::Clock;
use crate::config::raw::insert_provider;
use crate::config::resolve::Problem;
use crate::config::url::{origin_of, split_url};
use crate::config::{CommandLine, Config, encoding, slug};
use crate::logger;
use crate::login::LoginOptions;
use crate::login::discover::entry::{ProviderEntry, quoted};
use crate::login::discover::{self, DiscoverError, Found};
use crate::token::discovery::{self, KeptMetadata};
use crate::token::group::groups;
use crate::token::sender::Send;
use crate::token::state_file::{CLIENT_SECRET, check_writable, write_secret, write_whole};

use crate::commands::common::{
    BAD_CONFIG, Done, FAILED, USAGE, Variables, environment, fail, inspect_text, refresher, refuse,
    say, say_out, start_log, tell,
};
use crate::commands::login::complete;
use crate::commands::rewrite::{rewrite, target_of};

/// A provider for a file that has none yet, which would be a mistake.
const STAND_IN: &str = "- {name: x, type: generic, base_url: 'https://x', auth_type: none}";

/// The file that the entry is for.
struct Target {
    path: PathBuf,
    /// Its text; empty if it does not exist.
    text: String,
    config: Config,
    variables: Variables,
}

/// Logs in to the resource that `asked` names.
pub(crate) fn run(files: &Files, asked: &DiscoverOptions, options: LoginOptions) -> Done {
    let target = Target::read(files, asked)?;
    let name = target.new_name(asked)?;
    let config = &target.config;
    let state_dir = &config.settings.state_dir;
    check_writable(state_dir).map_err(|error| {
        let folder = state_dir.display();
        fail(format!("The state folder {folder} can't be written: {error}"), BAD_CONFIG)
    })?;
    let send = issuer_sender(&config.settings.egress, &config.settings.limits)
        .map_err(|error| fail(error, BAD_CONFIG))?;
    let found = discover::ask(&asked.url, asked.issuer.as_deref(), &send)
        .map_err(|error| fail(error, FAILED))?;
    say_found(&asked.url, &found);
    let entry = with_client(&target, &name, &found, asked, options, &send)
        .map_err(|why| fail(why, FAILED))?;
    let done = target.log_in(&entry, found, options);
    if done.is_err() {
        // Nobody would use the client.
        let secret = entry.client_secret_file.as_ref();
        let registered = secret.filter(|_| asked.client_secret_file.is_none());
        for file in [Some(&entry.client_id_file), registered].into_iter().flatten() {
            let _ = fs::remove_file(file);
        }
        return done;
    }
    target.show(&entry, asked);
    Ok(())
}

fn say_found(url: &str, found: &Found) {
    let scope = found.scope.as_deref().map(|scope| format!(", scope: {scope}"));
    say_out(&format!(
        "{url} is protected by the issuer {}{}\n",
        found.issuer.issuer,
        scope.unwrap_or_default()
    ));
}

/// The entry, whose client is the given one, or is registered now. Its id and secret go into files of the state folder.
fn with_client(
    target: &Target,
    name: &str,
    found: &Found,
    asked: &DiscoverOptions,
    options: LoginOptions,
    send: &Send,
) -> Result<ProviderEntry, String> {
    let told = |error: DiscoverError| error.to_string();
    let uses_device = options.device || found.issuer.authorization_endpoint.is_none();
    let registers = asked.client_id.is_none();
    let redirect_uri = match &asked.redirect_uri {
        None if registers && !uses_device => Some(discover::redirect_uri().map_err(told)?),
        given => given.clone(),
    };
    let mut entry = ProviderEntry {
        name: name.to_owned(),
        base_url: origin_of(&asked.url).to_owned(),
        issuer: found.issuer.issuer.clone(),
        scope: found.scope.clone(),
        resource: found.resource.clone(),
        client_secret_file: asked.client_secret_file.clone(),
        ..ProviderEntry::default()
    };
    let in_state_folder = |what: &str| {
        let folder = &target.config.settings.state_dir;
        // The service may be started elsewhere.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        folder.join(format!("{}.{what}", slug::of_name(name)))
    };
    entry.client_id_file = in_state_folder("client-id");
    let id = if let Some(id) = &asked.client_id {
        id.clone()
    } else {
        let client = discover::register(found, redirect_uri.as_deref(), send).map_err(told)?;
        say_out(&format!("Registered a client at {}\n", found.issuer.issuer));
        if let Some(secret) = &client.secret {
            let path = in_state_folder(CLIENT_SECRET);
            write_secret(&path, secret).map_err(|error| unwritable(&path, &error))?;
            (entry.client_secret_file, entry.client_auth) = (Some(path), client.auth);
        }
        if let Some(ends) = client.secret_ends {
            say(&format!(
                "The client's secret ends at {ends}, and refreshes fail from then on. Before that, take the entry out \
                 and run this again"
            ));
        }
        client.id
    };
    entry.redirect_uri = redirect_uri.filter(|_| !uses_device);
    let (path, line) = (&entry.client_id_file, format!("{id}\n"));
    write_whole(path, line.as_bytes()).map_err(|error| unwritable(path, &error))?;
    Ok(entry)
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("{} can't be written: {error}", path.display())
}

impl Target {
    fn read(files: &Files, asked: &DiscoverOptions) -> Result<Self, ExitCode> {
        let path = asked.write.clone().unwrap_or_else(|| files.config.clone());
        let log = logger::Options::default();
        let files = Files { config: path.clone(), ..files.clone() };
        let variables = Variables::of(&files).map_err(|problem| refuse(&[problem], log))?;
        if let Some(why) = asked.write.as_deref().and_then(|file| target_of(file).err()) {
            return Err(fail_early(format!("{}: can't be written: {why}", path.display())));
        }
        let text = match fs::read(&path) {
            Ok(bytes) => encoding::text_of(bytes)
                .map_err(|(_, why)| fail_early(format!("{}: {why}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(fail_early(format!("{}: can't be read: {error}", path.display())));
            }
        };
        let (mut config, mut problems) = inspect_text(&text, &path, &variables);
        let has_none = config.as_ref().is_some_and(|config| config.providers.is_empty());
        if has_none && let Ok(text) = insert_provider(&text, &[STAND_IN.to_owned()]) {
            (config, problems) = inspect_text(&text, &path, &variables);
        }
        let problems = problems.into_iter().map(Problem::without_server);
        let (errors, warnings): (Vec<_>, Vec<_>) =
            problems.partition(|problem| !problem.is_warning);
        let config = config.filter(|_| errors.is_empty());
        let mut config = config.ok_or_else(|| refuse(&errors, log))?;
        if has_none {
            config.providers.clear();
        }
        let warnings = warnings.iter().map(Problem::in_log).collect();
        start_log(&config, warnings, log, &Clock::system());
        Ok(Self { path, text, config, variables })
    }

    /// The provider's name: the given one, else the host's.
    fn new_name(&self, asked: &DiscoverOptions) -> Result<String, ExitCode> {
        let host = split_url(&asked.url).map_or("", |(_, host, _)| host);
        let name = asked.name.clone().unwrap_or_else(|| host.to_owned());
        let slug = slug::of_name(&name);
        if let Some(why) = slug::problem(&slug) {
            return Err(fail(
                format!("The name '{name}' gives no slug: {why}; choose one with --name"),
                USAGE,
            ));
        }
        let taken = self.config.providers.iter().find(|one| one.name == name || one.slug == slug);
        match taken {
            Some(other) => Err(fail(
                format!(
                    "{}: there is already a provider called '{}' (slug {}); choose another name with --name, or log in \
                     to that one with --provider {}",
                    self.path.display(),
                    other.name,
                    other.slug,
                    other.slug
                ),
                USAGE,
            )),
            None => Ok(name),
        }
    }

    /// Logs in as an evertoken with `entry` in its configuration would.
    fn log_in(&self, entry: &ProviderEntry, found: Found, options: LoginOptions) -> Done {
        let lines = entry.lines();
        let inserted = insert_provider(&self.text, &lines);
        let is_alone = inserted.is_err();
        let text = inserted.unwrap_or_else(|_| self.alone(&lines));
        let (config, problems) = inspect_text(&text, &self.path, &self.variables);
        let log = logger::Options::default();
        let problems = problems.into_iter().map(Problem::without_server);
        let errors: Vec<_> = problems.filter(|problem| !problem.is_warning).collect();
        let config = config.filter(|_| errors.is_empty());
        let mut config = config.ok_or_else(|| refuse(&errors, log))?;
        if is_alone {
            config.settings = self.config.settings.clone();
            let shared = &config.settings.egress;
            config.providers.iter_mut().for_each(|provider| provider.egress = shared.clone());
        }
        let mut environment = environment(Clock::system());
        let fetched_at = environment.clock.wall();
        let kept = KeptMetadata { metadata: found.issuer, fetched_at };
        if let Err(why) = discovery::keep(&config.settings.state_dir, &kept) {
            return Err(fail(why, FAILED));
        }
        let groups = groups(&config.providers);
        let index = config.providers.len() - 1;
        let group = groups.iter().find(|group| group.members.contains(&index));
        let Some(group) = group else { return Err(fail("The entry can't be used", FAILED)) };
        complete(refresher(0, group, &config, &mut environment)?, options)
    }

    /// A file with this entry and no other, for one that the entry can't be added to. It names the same state folder.
    fn alone(&self, entry: &[String]) -> String {
        let folder = quoted(&self.config.settings.state_dir.display().to_string());
        format!("settings: {{state_dir: {folder}}}\nproviders:\n{}\n", entry.join("\n"))
    }

    /// The options that make another command read the same files.
    fn call(&self) -> CommandLine {
        let call = CommandLine::of(&self.path.display().to_string());
        match &self.variables.named {
            Some(file) => call.with_environment_file(file),
            None => call,
        }
    }

    /// Writes the entry, if that is asked for and can be done, else prints it.
    fn show(&self, entry: &ProviderEntry, asked: &DiscoverOptions) {
        let lines = entry.lines();
        let path = self.path.display();
        match asked.write.as_deref().map(|file| rewrite(file, &lines)) {
            Some(Ok(())) => say_out(&format!(
                "Added the provider '{}' to {path}. `{}` makes a running evertoken use it.\n",
                entry.name,
                self.call().reload()
            )),
            unwritten => {
                if let Some(Err(why)) = unwritten {
                    say(&format!("{path} is not changed: {why}"));
                }
                let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
                say_out(&format!("Add this to the providers of {path}:\n\n{lines}\n"));
            }
        }
        let rest = split_url(&asked.url).map_or("", |(_, _, rest)| rest);
        say_out(&format!("Clients reach it at /to/{}{rest}\n", slug::of_name(&entry.name)));
    }
}

/// A failure before the log begins.
fn fail_early(why: String) -> ExitCode {
    tell(why, BAD_CONFIG)
}
