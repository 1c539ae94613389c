//! TLS for clients (`settings.tls`): its files at a check and while evertoken runs, and the commands that ask a running
//! evertoken.

use std::net::TcpListener;
use std::path::Path;

use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};

use evertoken::testing::Clock;

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::issuer::StrictIssuer;
use crate::support::own_tls::{Pair, ask};

const KEY: [(&str, &str); 1] = [("KEY", "k")];
const HEALTHY: &str = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A port that is free at this moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Writes a configuration with these settings besides `tls`.
fn write_config(folder: &Path, settings: &str, more: &str) {
    let state = folder.join("state");
    let state = state.display();
    let text = format!(
        "settings:\n  tls: {{cert_file: cert.pem, key_file: key.pem}}\n  state_dir: '{state}'\n{settings}\nproviders: [{{name: P, \
         type: generic, base_url: \"http://127.0.0.1:9\", auth_value_env: KEY}}]\n{more}"
    );
    std::fs::write(folder.join("providers.yaml"), text).unwrap();
}

/// A folder with `pair` and a configuration with these settings.
fn configured(pair: &Pair, settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    write_config(folder.path(), settings, "");
    folder
}

fn status(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(folder, &[&["status"], arguments].concat(), &KEY);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// It asked for `http://127.0.0.1:8080` then, or at least without TLS.
#[test]
fn status_finds_an_evertoken_with_tls_although_its_file_is_broken() {
    for listen in ["  port: PORT", "  listen: ['127.0.0.1:PORT']", "  listen:\n  - 127.0.0.1:PORT"]
    {
        let port = free_port();
        let settings = listen.replace("PORT", &port.to_string());
        let folder = configured(&Pair::new(), &settings);
        let running = Binary::start(folder.path(), &["run"], &KEY);
        running.wait_for(&format!("Listening on https://127.0.0.1:{port}"));
        for (more, what) in [("model_routes: [\n", "not YAML"), ("providers: 1\n", "a mistake")] {
            write_config(folder.path(), &settings, more);
            let (code, out, err) = status(folder.path(), &[]);
            assert_eq!(code, Some(0), "{listen}, {what}: {out}{err}");
            assert!(out.contains(&format!("https://127.0.0.1:{port}")), "{out}");
        }
    }
}

#[test]
fn status_trusts_the_configured_certificate_at_a_url_that_is_named_and_says_what_takes_tls() {
    let port = free_port();
    // It signs itself, and names another host.
    let folder = configured(&Pair::of("proxy.corp.example", |_| {}), &format!("  port: {port}"));
    let running = Binary::start(folder.path(), &["run"], &KEY);
    running.wait_for("Listening on https://");
    let url = format!("https://localhost:{port}");
    let (code, out, err) = status(folder.path(), &["--url", &url, "--config", "providers.yaml"]);
    assert_eq!(code, Some(0), "{out}{err}");
    // Without the configuration, nothing vouches for it.
    let (code, _, err) = status(folder.path(), &["--url", &url]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("; --config FILE trusts the certificate in its settings.tls"), "{err}");
    // The keys of a provider don't help here.
    assert!(!err.contains("ca_file") && !err.contains("is it running?"), "{err}");
    let (code, _, err) = status(folder.path(), &["--url", &url.replace("https", "http")]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("takes TLS: write https:// instead of http://"), "{err}");
}

/// The health check of the container failed with TLS, and would have at another port in the file.
#[test]
fn status_asks_at_the_address_that_run_was_told_as_the_file_says() {
    let tls = "\n  tls: {cert_file: cert.pem, key_file: key.pem}";
    for (more, scheme) in [(tls, "https"), ("", "http")] {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        Pair::of("proxy.corp.example", |_| {}).write(folder.path());
        let file = folder.path().join("providers.yaml");
        let text = format!(
            "settings:\n  port: 1\n  state_dir: state\n  auth: {{enabled: true, api_key_env: KEY}}{more}\nproviders: [{{name: P, \
             type: generic, base_url: \"http://127.0.0.1:9\", auth_value_env: KEY}}]\n"
        );
        std::fs::write(&file, &text).unwrap();
        let address = format!("0.0.0.0:{port}");
        let running = Binary::start(folder.path(), &["run", "--listen", &address], &KEY);
        running.wait_for(&format!("Listening on {scheme}://"));
        let named = ["--config", "providers.yaml", "--listen", &address];
        let (code, out, err) = status(folder.path(), &named);
        assert_eq!((code, &*err), (Some(0), ""), "{scheme}: {out}");
        assert!(out.contains(&format!("{scheme}://127.0.0.1:{port}")), "{out}");
        let quiet = || status(folder.path(), &[&named[..], &["--quiet"]].concat()).0;
        assert_eq!(quiet(), Some(0));
        // It runs with the file of before.
        std::fs::write(&file, text + "model_routes: [\n").unwrap();
        assert_eq!(quiet(), Some(0));
        drop(running);
        assert_eq!(quiet(), Some(1));
    }
}

/// A certificate that a private authority signed for another name than that of the address.
#[test]
fn token_and_exec_get_the_token_of_a_running_evertoken_over_tls() {
    let issuer = StrictIssuer::start(3600);
    issuer.knows("the-seed");
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    Pair::of_authority("proxy.corp.example").write(folder.path());
    let config = format!(
        "settings: {{port: {port}, state_dir: state, token_endpoint: true, tls: {{cert_file: cert.pem, key_file: key.pem}}, \
         auth: {{keys: [{{name: ci, key_env: KEY, providers: [p]}}]}}}}\nproviders: [{{name: P, type: generic, base_url: \
         \"http://127.0.0.1:9\", auto_refresh_config: {{token_url: '{}', client_id_env: ID, client_auth: none, \
         refresh_token_env: SEED}}}}]\n",
        issuer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let variables =
        [("KEY", "the-key-of-ci"), ("ID", "c"), ("SEED", "the-seed"), ("PATH", "/bin:/usr/bin")];
    let running = Binary::start(folder.path(), &["run"], &variables);
    running.wait_for("Successfully refreshed");
    running.wait_for("Listening on https://");
    let handed_out = || {
        let lines = running.lines();
        lines.iter().filter(|line| line.contains("Handed out the token of provider: P")).count()
    };
    let printed = run(folder.path(), &["token"], &variables);
    assert_eq!(text(&printed.stdout), "access-the-seed-1\n", "{}", text(&printed.stderr));
    eventually("the running one handed it out", || handed_out() == 1);
    let command = ["exec", "--env", "T", "--", "sh", "-c", "echo $T"];
    let printed = run(folder.path(), &command, &variables);
    assert_eq!(text(&printed.stdout), "access-the-seed-1\n", "{}", text(&printed.stderr));
    eventually("the running one handed it out", || handed_out() == 2);
    assert_eq!(issuer.presented().len(), 1);
    // Another certificate at the address gets no key of ours; the state folder has the token.
    Pair::new().write(&{
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        other
    });
    let file = folder.path().join("providers.yaml");
    let other = std::fs::read_to_string(&file)
        .unwrap()
        .replace("cert.pem, key_file: key", "other/cert.pem, key_file: other/key");
    std::fs::write(&file, other).unwrap();
    let printed = run(folder.path(), &["token"], &variables);
    assert_eq!(text(&printed.stdout), "access-the-seed-1\n", "{}", text(&printed.stderr));
    assert_eq!(handed_out(), 2, "{:?}", running.lines());
}

/// It took the place of the good one, and clients refused it from then on.
#[test]
fn a_certificate_that_clients_would_refuse_does_not_replace_a_good_one() {
    let good = Pair::new();
    let folder = configured(&good, "  port: 0");
    let running = Binary::start(folder.path(), &["run"], &KEY);
    let address = running.address();
    Pair::valid(2020, 2021).write(folder.path());
    running.wait_for("has a new certificate, which expired at 2021-01-01T00:00:00.000Z; clients refuse it; the one before it is still shown");
    assert!(ask(address, &good.usual(), HEALTHY).is_ok());
    Pair::valid(2100, 2120).write(folder.path());
    running.wait_for("is valid from 2100-01-01T00:00:00.000Z on; clients refuse it until then; the one before it is still shown");
    assert!(ask(address, &good.usual(), HEALTHY).is_ok());
    let next = Pair::new();
    next.write(folder.path());
    running.wait_for("has a new certificate, which ends at");
    assert!(ask(address, &next.usual(), HEALTHY).is_ok());
}

/// `check` went well with a warning, or without a word for an address of this machine alone.
#[test]
fn a_certificate_for_another_host_fails_a_check_and_a_start_only_warns_of_it() {
    let folder = tempfile::tempdir().unwrap();
    Pair::of("other.example", |_| {}).write(folder.path());
    let auth = "  auth: {enabled: true, api_key_env: KEY}";
    let named = format!("{auth}\n  allowed_hosts: [other.example]\n  listen: ['192.0.2.7:1']");
    let message =
        |host: &str| format!("the certificate is for other.example, and not for {host}: clients");
    for (settings, host) in [
        ("  port: 0".to_owned(), Some("localhost or 127.0.0.1")),
        (format!("{auth}\n  listen: ['proxy.example:1']"), Some("proxy.example")),
        (format!("{auth}\n  listen: ['192.0.2.7:1', '[2001:db8::7]:1']"), Some("2001:db8::7")),
        (format!("{auth}\n  listen: ['0.0.0.0:1']"), None),
        (named, None),
    ] {
        write_config(folder.path(), &settings, "");
        let output = run(folder.path(), &["check"], &KEY);
        let told = text(&output.stderr);
        let code = if host.is_some() { 78 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{settings}: {told}");
        if let Some(host) = host {
            let line = format!("providers.yaml:2:20: {}", message(host));
            assert!(told.contains(&line), "{settings}: {told}");
            assert!(!told.contains("warning: the certificate is for"), "once: {told}");
        }
        let output = run(folder.path(), &["check", "--start"], &KEY);
        assert_eq!(output.status.code(), Some(0), "{settings}: {}", text(&output.stderr));
    }
    write_config(folder.path(), "  port: 0", "");
    let running = Binary::start(folder.path(), &["run"], &KEY);
    assert!(running.wait_for("the certificate is for other.example").contains("WARN"));
    running.wait_for("Listening on https://");
}

/// They ended with 78, although the running evertoken still had the key that fits.
#[test]
fn commands_without_the_server_do_without_a_certificate_that_fits() {
    let issuer = StrictIssuer::start(3600);
    issuer.knows("the-seed");
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let config = format!(
        "settings: {{listen: ['127.0.0.1:0', 'unix:{at}/s'], state_dir: state, token_endpoint: true, tls: {{cert_file: \
         cert.pem, key_file: key.pem}}, auth: {{keys: [{{name: ci, key_env: KEY, providers: [p]}}]}}}}\nproviders: [{{name: P, type: generic, base_url: \"http://127.0.0.1:9\", \
         auto_refresh_config: {{token_url: '{}', client_id_env: ID, client_auth: none, refresh_token_env: SEED}}}}]\n",
        issuer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let variables =
        [("KEY", "the-key-of-ci"), ("ID", "c"), ("SEED", "the-seed"), ("PATH", "/bin:/usr/bin")];
    Pair::new().write(folder.path());
    let running = Binary::start(folder.path(), &["run"], &variables);
    running.wait_for("Successfully refreshed");
    running.wait_for("Listening on unix:");
    let exec = ["exec", "--env", "T", "--", "sh", "-c", "echo $T"];
    let unfit: [&dyn Fn(); 3] = [
        &|| std::fs::write(folder.path().join("key.pem"), Pair::new().key).unwrap(),
        &|| std::fs::write(folder.path().join("cert.pem"), "").unwrap(),
        &|| std::fs::remove_file(folder.path().join("key.pem")).unwrap(),
    ];
    for spoil in unfit {
        spoil();
        for command in [&["token"][..], &exec] {
            let printed = run(folder.path(), command, &variables);
            let told = (text(&printed.stdout), text(&printed.stderr));
            assert_eq!(told, ("access-the-seed-1\n".to_owned(), String::new()));
        }
    }
    let handed_out =
        || running.lines().iter().filter(|line| line.contains("Handed out the token")).count();
    eventually("all came over the unix socket", || handed_out() == 6);
    drop(running);
    // Without it, the state folder has the token.
    let printed = run(folder.path(), &["token"], &variables);
    assert_eq!(text(&printed.stdout), "access-the-seed-1\n", "{}", text(&printed.stderr));
    let refreshed = run(folder.path(), &["refresh"], &variables);
    assert_eq!(refreshed.status.code(), Some(0), "{}", text(&refreshed.stderr));
    let told = text(&refreshed.stderr);
    assert!(told.contains("[WARN] providers.yaml:1:") && told.contains("'cert.pem'"), "{told}");
    for command in [&["run"][..], &["check"]] {
        let refused = run(folder.path(), command, &variables);
        assert_eq!(refused.status.code(), Some(78), "{}", text(&refused.stderr));
    }
}

/// Only the log said so, once.
#[test]
fn a_renewal_that_failed_is_told_until_one_succeeds() {
    let good = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    good.write(folder.path());
    let (port, socket) = (free_port(), folder.path().join("s"));
    let settings = format!("  listen: ['127.0.0.1:{port}', 'unix:{}']", socket.display());
    write_config(folder.path(), &settings, "");
    let running = Binary::start(folder.path(), &["run"], &KEY);
    let address = running.address();
    let ask = |path: &str| {
        let mut client = Client::connect_unix(&socket);
        client.send(get(path));
        client.answer()
    };
    let of_status = || ask("/-/status").json()["listeners"][0]["certificate"].clone();
    let usable = |is_usable: u8| {
        let line = format!(
            "evertoken_certificate_files_usable{{listener=\"https://{address}\"}} {is_usable}"
        );
        ask("/-/metrics").body.lines().any(|own| own == line)
    };
    assert!(of_status()["renewal_problem"].is_null() && usable(1));
    std::fs::write(folder.path().join("key.pem"), Pair::new().key).unwrap();
    let told = "'cert.pem' of settings.tls can't be used: its certificate belongs to another key; the one before it is still shown";
    eventually("it is told", || of_status()["renewal_problem"] == told);
    assert!(usable(0));
    for page in ["/-/", "/-/ready"] {
        let body = ask(page).body.replace("&#39;", "'");
        assert!(body.contains(told), "{page}: {body}");
    }
    let (code, out, err) = status(folder.path(), &[]);
    assert!(out.replace('\n', " ").contains(told), "{out}{err}");
    assert_eq!(code, Some(0), "every provider is ready");
    good.write(folder.path());
    eventually("the files are usable again", || of_status()["renewal_problem"].is_null());
    assert!(usable(1));
}

/// Its clients were the first to notice.
#[test]
fn a_new_certificate_for_fewer_names_is_told() {
    let folder = configured(&Pair::new(), "  port: 0");
    let running = Binary::start(folder.path(), &["run"], &KEY);
    let address = running.address();
    let fewer = Pair::of("localhost", |_| {});
    fewer.write(folder.path());
    let line = running.wait_for("has a new certificate, which is no longer for 127.0.0.1");
    assert!(line.contains("WARN"), "{line}");
    assert!(ask(address, &fewer.usual(), HEALTHY).is_ok());
}

/// Nothing was said before clients refused it.
#[test]
fn a_certificate_that_ends_soon_is_told_in_the_log() {
    const THREE_DAYS_MS: i64 = 3 * 86_400_000;
    let day = Clock::system().now().wall.plus_millis(THREE_DAYS_MS).to_string();
    let part = |from: usize, to: usize| day[from..to].parse::<i32>().unwrap();
    let (month, date) = (u8::try_from(part(5, 7)).unwrap(), u8::try_from(part(8, 10)).unwrap());
    let ending =
        Pair::of("localhost", |one| one.not_after = date_time_ymd(part(0, 4), month, date));
    let folder = configured(&ending, "  port: 0");
    let running = Binary::start(folder.path(), &["run"], &KEY);
    let check = run(folder.path(), &["check"], &KEY);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    let soon =
        format!("warning: the certificate of settings.tls expires at {}T00:00:00", &day[..10]);
    assert!(text(&check.stderr).contains(&soon), "{}", text(&check.stderr));
    let line = format!("The certificate 'cert.pem' expires at {}T00:00:00", &day[..10]);
    assert!(running.wait_for(&line).contains("WARN"));
    running.wait_for("Listening on https://");
}

/// A second line for the same client took the place of one about a real failure.
#[test]
fn plain_http_to_a_port_with_tls_is_told_once() {
    let folder = configured(&Pair::new(), "  port: 0");
    let running = Binary::start(folder.path(), &["run"], &KEY);
    let address = running.address();
    let mut plain = Client::connect(address);
    plain.send(HEALTHY);
    assert_eq!(plain.answer().status, 400);
    running.wait_for("it speaks plain HTTP");
    let mut rubbish = Client::connect(address);
    rubbish.send(b"\x16\x03\x01\x00\x05rubbish");
    rubbish.rest(&mut Vec::new());
    running.wait_for("its TLS handshake failed");
    let lines = running.lines();
    let failed: Vec<_> = lines.iter().filter(|line| line.contains("handshake failed")).collect();
    assert!(failed.len() == 1 && !failed[0].contains("ContentType"), "{lines:?}");
}

/// certbot and Kubernetes keep the files behind symbolic links, and replace these.
#[test]
fn files_behind_links_that_are_replaced_are_read_again() {
    use std::os::unix::fs::symlink;
    let (first, second) = (Pair::new(), Pair::new());
    let folder = configured(&first, "  port: 0");
    let at = |name: &str| folder.path().join(name);
    for (name, pair) in [("..1", &first), ("..2", &second)] {
        std::fs::create_dir(at(name)).unwrap();
        pair.write(&at(name));
    }
    symlink("..1", at("..data")).unwrap();
    for name in ["cert.pem", "key.pem"] {
        std::fs::remove_file(at(name)).unwrap();
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let running = Binary::start(folder.path(), &["run"], &KEY);
    let address = running.address();
    assert!(ask(address, &first.usual(), HEALTHY).is_ok());
    symlink("..2", at("..new")).unwrap();
    std::fs::rename(at("..new"), at("..data")).unwrap();
    eventually("the second certificate is shown", || {
        ask(address, &second.usual(), HEALTHY).is_ok()
    });
    // A file that a program is still writing, and one that it has taken away.
    let half = &first.certificate[..first.certificate.len() / 2];
    std::fs::write(at("..2/cert.pem"), half).unwrap();
    running.wait_for("its certificate is damaged or cut off; the one before it is still shown");
    std::fs::remove_file(at("..data")).unwrap();
    running.wait_for("No such file or directory");
    assert!(ask(address, &second.usual(), HEALTHY).is_ok());
}

#[test]
fn a_check_judges_the_whole_chain_and_whom_the_certificate_is_for() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), "  port: 0", "");
    let chain = Pair::of_authority("localhost");
    let told = |certificate: &str, key: &str| {
        chain.write(folder.path());
        std::fs::write(folder.path().join("cert.pem"), certificate).unwrap();
        std::fs::write(folder.path().join("key.pem"), key).unwrap();
        let output = run(folder.path(), &["check"], &KEY);
        (output.status.code(), text(&output.stderr))
    };
    let fine = told(&chain.certificate, &chain.key);
    assert_eq!(fine, (Some(0), String::new()));
    let windows = chain.certificate.replace('\n', "\r\n");
    let with_text = format!(
        "# mine\nsubject=CN = x\n{}",
        chain.certificate.replace("-----\n-----", "-----\nissuer\n-----")
    );
    for text in [&windows, &with_text, &format!("\u{feff}{}", chain.certificate)] {
        assert_eq!(told(text, &chain.key), fine, "{text}");
    }
    let behind = chain.certificate.rfind("-----BEGIN").unwrap();
    let (own, issuer) = chain.certificate.split_at(behind);
    // `check` found nothing wrong with this one, and the start failed: "missing section end marker: [67, 69, …]".
    let cut = &chain.certificate[..behind + 100];
    let cases = [
        (
            cut.to_owned(),
            "'cert.pem' can't be used: certificate 2 of its chain is damaged or cut off",
        ),
        (
            format!("{issuer}{own}"),
            "the first certificate in 'cert.pem' belongs to another key, and certificate 2 to this one: put it first, and \
             those of its issuers behind it",
        ),
        (issuer.to_owned(), "the certificate in 'cert.pem' belongs to another key"),
    ];
    for (certificate, message) in cases {
        let (code, lines) = told(&certificate, &chain.key);
        assert_eq!(code, Some(78), "{lines}");
        assert!(lines.contains(message), "{lines}");
        let output = run(folder.path(), &["run"], &KEY);
        assert_eq!(output.status.code(), Some(78));
        assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
    }
    for (pair, message) in [
        (
            Pair::of("", |one| one.distinguished_name.push(DnType::CommonName, "localhost")),
            "warning: the certificate in 'cert.pem' names no host (subjectAltName), so browsers and programs in Go or Rust refuse it",
        ),
        (
            Pair::of("localhost", |one| {
                one.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }),
            "warning: the certificate in 'cert.pem' is that of an authority (CA:TRUE), which some clients refuse",
        ),
        (
            Pair::of("localhost", |one| {
                one.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            "warning: the certificate in 'cert.pem' is not for servers (its extendedKeyUsage lacks serverAuth)",
        ),
    ] {
        let (code, lines) = told(&pair.certificate, &pair.key);
        assert_eq!(code, Some(0), "{lines}");
        assert!(lines.contains(message), "{lines}");
    }
    for usage in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any] {
        let pair = Pair::of("localhost", |one| {
            one.extended_key_usages = vec![usage.clone()];
        });
        assert_eq!(told(&pair.certificate, &pair.key), fine, "{usage:?}");
    }
}

#[test]
fn files_that_may_not_be_read_are_named() {
    let folder = configured(&Pair::new(), "  port: 0");
    let allow = |name: &str, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path().join(name), mode).unwrap();
    };
    allow("cert.pem", 0o644);
    allow("key.pem", 0);
    allow("", 0o755);
    // Root may read everything.
    let script = format!(
        "if [ $(id -u) = 0 ]; then exec setpriv --reuid 65534 --clear-groups {0} check; fi; exec {0} check",
        env!("CARGO_BIN_EXE_evertoken")
    );
    let mut check =
        Binary::start_shell(folder.path(), &script, &[KEY[0], ("PATH", "/usr/bin:/bin")]);
    assert_eq!(check.code(), Some(78), "{:?}", check.lines());
    check.wait_for("Missing secret file: 'key.pem' (Permission denied");
}
