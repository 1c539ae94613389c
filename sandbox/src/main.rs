//! The `sandbox` command: serves alone, or runs evertoken against it as `make run` does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::issuer::CLIENT_ID;
use sandbox::manners::{KINDS, Manners};
use sandbox::server::EVENT_DELAY;
use sandbox::{Options, Sandbox, folder};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const USAGE: &str = "\
Usage: sandbox serve [--port N] [--lifetime SECONDS] [--event-delay MS] [--overlap SECONDS] [--manner KIND|FILE]
                     [--public-key FILE]
       sandbox demo --evertoken BINARY [--dir DIR] [--port N] [--lifetime SECONDS]

serve  an OAuth issuer and a model provider on 127.0.0.1, both at the address that it prints; in providers.yaml, this is the
       base_url and the issuer, and with /oauth/token after it the token_url. `evertoken login --discover` takes it too
       three endpoints are no OAuth, for `token_request`: /copilot_internal/v2/token (with a refresh token of the sandbox as
       its credential), /computeMetadata/v1/instance/service-accounts/default/token and /metadata/identity/oauth2/token
demo   the same with evertoken in front of it, and a curl line to try; a second one takes another folder and port

--port  the port; without it, serve takes a free one
--public-key  a PEM file: the issuer takes assertions and subject tokens that are signed with its private half
--manner  has the issuer behave like a real one, whose lifetime and overlap it has unless they are given: one of
          KINDS
          or a YAML file like those of sandbox/manners
";

/// The options of `serve`; `demo` takes them too. Each has a value.
const OPTIONS: [&str; 6] =
    ["--port", "--lifetime", "--event-delay", "--overlap", "--manner", "--public-key"];
/// The options of `demo` alone.
const DEMO_OPTIONS: [&str; 2] = ["--evertoken", "--dir"];

/// The longest time until evertoken is ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// The time between two looks.
const READY_POLL: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        let _ = std::io::stdout().write_all(usage().as_bytes());
        return ExitCode::SUCCESS;
    }
    let Some(command @ ("serve" | "demo")) = arguments.first().map(String::as_str) else {
        say(&usage());
        return ExitCode::from(2);
    };
    if let Some(unknown) = unknown(command, &arguments[1..]) {
        say(&format!("sandbox: {command} knows no '{unknown}'; see: sandbox {command} --help\n"));
        return ExitCode::from(2);
    }
    let outcome = if command == "serve" { serve(&arguments) } else { demo(&arguments) };
    outcome.unwrap_or_else(|why| {
        say(&format!("sandbox: {why}\n"));
        ExitCode::FAILURE
    })
}

fn usage() -> String {
    let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
    USAGE.replace("KINDS", &kinds.join(" "))
}

/// The first word of `options` that is neither an option of `command` nor an option's value.
fn unknown<'a>(command: &str, options: &'a [String]) -> Option<&'a str> {
    let is_known =
        |word: &str| OPTIONS.contains(&word) || (command == "demo" && DEMO_OPTIONS.contains(&word));
    options.iter().step_by(2).map(String::as_str).find(|word| !is_known(word))
}

fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The value of `--name`, if it is given.
fn option<T: std::str::FromStr>(arguments: &[String], name: &str) -> Result<Option<T>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let value = arguments.get(at + 1).and_then(|value| value.parse().ok());
    value.map(Some).ok_or_else(|| format!("{name} needs a value"))
}

/// The manners of `--manner`, or the sandbox's own with tokens of 30 s.
fn manners(arguments: &[String]) -> Result<Manners, String> {
    let kind: Option<String> = option(arguments, "--manner")?;
    let mut manners = kind.as_deref().map_or_else(|| Ok(Manners::own()), Manners::find)?;
    let own_seconds = kind.is_none().then_some(30);
    if let Some(seconds) = option(arguments, "--lifetime")?.or(own_seconds) {
        manners.tokens.lifetime_seconds = seconds;
    }
    if let Some(seconds) = option(arguments, "--overlap")? {
        manners.rotation.overlap_seconds = seconds;
    }
    Ok(manners)
}

fn start(arguments: &[String], port: u16) -> Result<Sandbox, String> {
    let delay = option(arguments, "--event-delay")?.map(Duration::from_millis);
    let manners = manners(arguments)?;
    let key: Option<String> = option(arguments, "--public-key")?;
    let read =
        |file: String| std::fs::read_to_string(&file).map_err(|why| format!("{file}: {why}"));
    let options = Options {
        public_keys: key.map(read).transpose()?.into_iter().collect(),
        port,
        manners: Some(manners),
        event_delay: delay.unwrap_or(EVENT_DELAY),
        ..Options::default()
    };
    Sandbox::start(options).map_err(|error| error.to_string())
}

fn serve(arguments: &[String]) -> Result<ExitCode, String> {
    let sandbox = start(arguments, option(arguments, "--port")?.unwrap_or(0))?;
    say(&format!(
        "listening on {}\nclient_id={CLIENT_ID}\nclient_secret={}\nrefresh_token={}\n",
        sandbox.url(),
        sandbox.client_secret(),
        sandbox.login()
    ));
    loop {
        std::thread::park();
    }
}

fn demo(arguments: &[String]) -> Result<ExitCode, String> {
    let binary: PathBuf =
        option(arguments, "--evertoken")?.ok_or("demo needs --evertoken BINARY")?;
    let wanted = option(arguments, "--dir")?.unwrap_or_else(|| PathBuf::from("target/sandbox"));
    let folder = folder::claim(&wanted).map_err(|error| error.to_string())?;
    let sandbox = start(arguments, 0)?;
    let port = free_port(option(arguments, "--port")?.unwrap_or(8080));
    let file = write_config(&sandbox, &folder.path, port).map_err(|error| error.to_string())?;
    if folder.path != wanted {
        say(&format!(
            "Another sandbox runs in {}, so this one is in {}.\n",
            wanted.display(),
            folder.path.display()
        ));
    }
    say(&format!(
        "No providers.yaml here, so evertoken runs against a sandbox on {} whose tokens live {} s.\n",
        sandbox.url(),
        sandbox.lifetime().as_secs()
    ));
    // Before evertoken starts, so that no signal ends this process and leaves evertoken running.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| error.to_string())?;
    let mut child = Command::new(&binary)
        .args(["run", "--config"])
        .arg(&file)
        // Ctrl-C reaches only this process, so that evertoken is told once.
        .process_group(0)
        .env("SANDBOX_CLIENT_ID", CLIENT_ID)
        .env("SANDBOX_CLIENT_SECRET", sandbox.client_secret())
        .env("SANDBOX_ANTHROPIC_REFRESH_TOKEN", sandbox.login())
        .env("SANDBOX_OPENAI_REFRESH_TOKEN", sandbox.login())
        .spawn()
        .map_err(|error| format!("{} can't be started: {error}", binary.display()))?;
    pass_on(signals, &child);
    if wait_until_ready(port, &mut child) {
        print_examples(port);
    }
    // evertoken ends cleanly, and then this process ends.
    let status = child.wait().map_err(|error| error.to_string())?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}

/// Any signal that ends this process ends `child`; so does a closed terminal, on which evertoken would only read its
/// configuration again.
#[expect(clippy::disallowed_methods, reason = "this thread ends with the process")]
fn pass_on(mut signals: Signals, child: &Child) {
    let child = Pid::from_child(child);
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // An ended child needs no signal.
            let _ = kill_process(child, Signal::TERM);
        }
    });
}

/// `wanted`, or another port if it is in use.
fn free_port(wanted: u16) -> u16 {
    let bind = |port: u16| {
        TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr())
    };
    bind(wanted).or_else(|_| bind(0)).map_or(wanted, |address| address.port())
}

fn write_config(sandbox: &Sandbox, folder: &Path, port: u16) -> std::io::Result<PathBuf> {
    let state = std::path::absolute(folder)?.join("state");
    if state.exists() {
        // Tokens of an earlier sandbox, which are unknown now.
        std::fs::remove_dir_all(&state)?;
    }
    std::fs::create_dir_all(&state)?;
    let url = sandbox.url();
    let provider = |name: &str, kind: &str| {
        format!(
            "  - name: \"Sandbox {name}\"
    type: \"{kind}\"
    base_url: \"{url}\"
    auth_type: \"auth_token\"
    auto_refresh_config:
      enabled: true
      token_url: \"{url}/oauth/token\"
      client_id_env: \"SANDBOX_CLIENT_ID\"
      client_secret_env: \"SANDBOX_CLIENT_SECRET\"
      refresh_token_env: \"SANDBOX_{}_REFRESH_TOKEN\"
",
            kind.to_uppercase()
        )
    };
    let text = format!(
        "settings:\n  port: {port}\n  state_dir: \"{}\"\nproviders:\n{}{}",
        state.display(),
        provider("Anthropic", "anthropic"),
        provider("OpenAI", "openai")
    );
    let file = folder.join("providers.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}

#[expect(clippy::disallowed_methods, reason = "the sandbox waits for a process in real time")]
fn wait_until_ready(port: u16, child: &mut Child) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < READY_MAX {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return false;
        }
        if is_ready(port).unwrap_or(false) {
            return true;
        }
        std::thread::sleep(READY_POLL);
    }
    false
}

fn is_ready(port: u16) -> std::io::Result<bool> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, READY_POLL)?;
    stream.set_read_timeout(Some(READY_MAX))?;
    stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

fn print_examples(port: u16) {
    let json = "-H 'content-type: application/json'";
    let message = r#""messages":[{"role":"user","content":"Hello from the sandbox"}]"#;
    say(&format!(
        "
evertoken is ready. Its page is http://127.0.0.1:{port}/-/

Try it from another terminal:

  curl -N http://127.0.0.1:{port}/v1/messages {json} -d '{{\"model\":\"sandbox-1\",\"max_tokens\":64,\"stream\":true,{message}}}'

  curl -N http://127.0.0.1:{port}/v1/chat/completions {json} -d '{{\"model\":\"sandbox-1\",\"stream\":true,{message}}}'

  curl -N http://127.0.0.1:{port}/v1/responses {json} -d '{{\"model\":\"sandbox-1\",\"stream\":true,\"input\":\"Hello from the sandbox\"}}'

  curl http://127.0.0.1:{port}/-/status

Ctrl-C ends it.

"
    ));
}
