//! Tests of the command line.

use super::*;

fn parsed(line: &str) -> Result<Command, String> {
    parse(line.split_whitespace().map(Into::into)).map_err(|error| error.to_string())
}

#[test]
fn command_lines() {
    let files = |config: &str| Files { config: config.into(), environment: None };
    let run = |config: &str, listen: Option<(&str, u16)>| Command::Run {
        files: files(config),
        listen: listen.map(|(host, port)| ListenAddress::Tcp { host: host.into(), port }),
        log: logger::Options::default(),
    };
    let status = |config: Option<&str>, url: Option<&str>, form, watches| Command::Status {
        config: config.map(Into::into),
        place: url.map_or(status::Place::Configured, |url| status::Place::Url(url.into())),
        options: status::StatusOptions { form, watches },
    };
    let check = |extent| Command::Check { files: files("providers.yaml"), extent };
    let check_route = |model: &str, key: Option<&str>, path: Option<&str>| Command::CheckRoute {
        files: files("providers.yaml"),
        question: RouteQuestion {
            model: model.into(),
            key: key.map(Into::into),
            path: path.map(Into::into),
        },
    };
    let json_and_quiet = logger::Options { format: Format::Json, is_quiet: true };
    let token = |provider: Option<&str>, format| Command::Token {
        files: files("providers.yaml"),
        provider: provider.map(Into::into),
        format,
    };
    let exec = |variables: &[&str], command: &[&str]| Command::Exec {
        files: files("providers.yaml"),
        provider: Some("P".into()),
        variables: variables.iter().copied().map(Into::into).collect(),
        command: command.iter().map(Into::into).collect(),
    };
    let cases = [
        ("token", token(None, TokenFormat::Token)),
        ("token -p P --format exec-credential", token(Some("P"), TokenFormat::ExecCredential)),
        ("token --format header", token(None, TokenFormat::Header)),
        ("token --format json", token(None, TokenFormat::Json)),
        (
            "exec -p P --env A -- a -b --env c -- d",
            exec(&["A"], &["a", "-b", "--env", "c", "--", "d"]),
        ),
        ("exec --env A -p P --env B -- a", exec(&["A", "B"], &["a"])),
        ("", run("providers.yaml", None)),
        ("run", run("providers.yaml", None)),
        ("--config a.yaml", run("a.yaml", None)),
        ("run -c a.yaml --listen=[::1]:0", run("a.yaml", Some(("::1", 0)))),
        ("--listen localhost:80", run("providers.yaml", Some(("localhost", 80)))),
        ("check --online", check(Extent::Online)),
        ("check --start", check(Extent::Start)),
        ("check --names", check(Extent::Names)),
        ("check", check(Extent::Offline)),
        ("check --route m", check_route("m", None, None)),
        ("check --key k --route m --path /v1/x?y", check_route("m", Some("k"), Some("/v1/x?y"))),
        ("check --route m --path http://127.0.0.1:8080/v1", check_route("m", None, Some("/v1"))),
        (
            "reload --pid 7 -c x --environment-file e",
            Command::Reload {
                files: Files { config: "x".into(), environment: Some("e".into()) },
                process: Some(7),
            },
        ),
        ("reload", Command::Reload { files: files("providers.yaml"), process: None }),
        (
            "refresh --provider P -c x",
            Command::Refresh {
                files: files("x"),
                provider: Some("P".into()),
                log: logger::Options::default(),
            },
        ),
        (
            "--log-format json -q",
            Command::Run { files: files("providers.yaml"), listen: None, log: json_and_quiet },
        ),
        (
            "refresh --quiet --log-format=json",
            Command::Refresh {
                files: files("providers.yaml"),
                provider: None,
                log: json_and_quiet,
            },
        ),
        ("status", status(None, None, status::OutputForm::Table, false)),
        (
            "status --url http://h:1 --json -w",
            status(None, Some("http://h:1"), status::OutputForm::Json, true),
        ),
        ("status -qc x", status(Some("x"), None, status::OutputForm::Quiet, false)),
        (
            "login -p P --paste --no-browser",
            Command::Login {
                files: files("providers.yaml"),
                provider: "P".into(),
                options: LoginOptions { paste: true, device: false, no_browser: true },
            },
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(parsed(line), Ok(expected), "{line}");
    }
}

#[test]
fn help_and_version_on_every_level() {
    for (line, start) in [
        ("--help", "A small forwarding proxy"),
        ("-h", "A small forwarding proxy"),
        ("run --help", "Run the proxy"),
        ("check --help", "Validate"),
        ("refresh -h", "Refresh now"),
        ("status -h", "Ask a running instance"),
        ("reload --help", "Check the file, then"),
        ("login --help", "Get a provider's first"),
        ("check --version", "evertoken-check 0."),
        ("-V", "evertoken 0."),
    ] {
        let Ok(Command::Print(text)) = parsed(line) else { panic!("{line}") };
        assert!(text.starts_with(start), "{line}: {text}");
    }
}

#[test]
fn mistakes_are_named() {
    for (line, part) in [
        ("serve", "'serve'"),
        ("run now", "now"),
        ("--tokn x", "--tokn"),
        ("check --listen 127.0.0.1:1", "--listen"),
        ("run --online", "--online"),
        ("--provider x", "--provider"),
        ("login", "--provider"),
        ("logout", "--provider"),
        ("login -p P --discover https://x", "--discover"),
        ("login --discover http://example.com/mcp", "http is for addresses of this machine"),
        ("login --discover mcp.example.com", "write a URL"),
        ("login --discover https://x --client-secret-file f", "--client-id"),
        ("login --write f", "--discover"),
        ("login -p P --write f", "--provider"),
        ("check --online --start", "--start"),
        ("reload --pid 0", "--pid"),
        ("reload --pid 4194305", "--pid"),
        ("login -p P --paste --device", "--device"),
        ("--listen [::1]:0 check", "check"),
        ("run --log-format xml", "json"),
        ("check --quiet", "--quiet"),
        ("token --format yaml", "exec-credential"),
        ("exec -- a", "--env"),
        ("exec --env A", "COMMAND"),
        ("exec --env A a", "unexpected argument 'a'"),
        ("exec --env A=b -- a", "the name alone"),
        ("exec --env= -- a", "OPENAI_API_KEY"),
        ("exec --env A,B -- a", "once for each variable"),
        ("exec --env $A -- a", "OPENAI_API_KEY"),
        ("--listen 8080", "HOST:PORT"),
        ("--listen :8080", "HOST:PORT"),
        ("--listen a:99999", "HOST:PORT"),
        ("--config", "--config"),
        ("status --url 127.0.0.1", "http://"),
        ("status --url ftp://127.0.0.1:8080", "http://"),
        ("status --quiet --json", "--json"),
        ("status --url http://h:1 --listen h:1", "--listen"),
        ("status --key x", "--key"),
        ("--config x check", "Did you mean: evertoken check --config x\n"),
        ("-l [::1]:0 run --quiet", "Did you mean: evertoken run -l [::1]:0 --quiet\n"),
        ("check other.yaml", "Did you mean: evertoken check --config other.yaml\n"),
        ("other.yaml", "Did you mean: evertoken --config other.yaml\n"),
        ("check --online other.yml", "evertoken check --online --config other.yml\n"),
    ] {
        let error = parsed(line).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn calls_that_people_try_first() {
    let printed = |line: &str| match parsed(line) {
        Ok(Command::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(printed("help"), printed("--help"));
    assert_eq!(printed("help check"), printed("check --help"));
    // A correct part gets no other proposal.
    let named = parsed("check --config a.yaml --environment-file b.yaml --no-such").unwrap_err();
    assert!(!named.contains("Did you mean: evertoken"), "{named}");
}

#[test]
fn the_address_that_status_asks() {
    let place = |line: &str| match parsed(line) {
        Ok(Command::Status { place, .. }) => place,
        other => panic!("{line}: {other:?}"),
    };
    let url = |url: &str| status::Place::Url(url.into());
    assert_eq!(place("status -u 127.0.0.1:8082"), url("http://127.0.0.1:8082"));
    assert_eq!(place("status -u [::1]:8082"), url("http://[::1]:8082"));
    let told = ListenAddress::Tcp { host: "0.0.0.0".into(), port: 80 };
    assert_eq!(place("status --listen 0.0.0.0:80"), status::Place::Listen(told));
}

#[test]
fn the_name_of_a_new_key() {
    let parsed = |name: &str| parse(["key", name].map(Into::into));
    let files = Files { config: "providers.yaml".into(), environment: None };
    assert_eq!(parsed("a.b-C_1").unwrap(), Command::Key { files, name: "a.b-C_1".into() });
    for (name, part) in [("a b", "write a name"), ("default", "keys without one")] {
        let told = parsed(name).unwrap_err().to_string();
        assert!(told.contains(part), "{told}");
    }
}
