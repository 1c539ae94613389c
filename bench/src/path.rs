//! The hot path alone, so that its instructions can be counted.
//!
//! The client's requests are in the socket before they are read. The provider is a thread that only reads a request
//! and writes the answer: evertoken does not use a kept connection again if an answer is there before its request.
//! The counts of two runs of different length are subtracted, which leaves the requests between.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use evertoken::testing::App;
use evertoken::testing::Clock;
use evertoken::testing::Environment;
use evertoken::testing::Guest;
use evertoken::testing::ListenerTally;
use evertoken::testing::Live;
use evertoken::testing::Proxy;
use evertoken::testing::Refusal;
use evertoken::testing::RequestHead;
use evertoken::testing::Supervisor;
use evertoken::testing::{After, Request, Service, serve_connection};
use evertoken::testing::{Sources, resolve};

use crate::process::output;
use crate::report::short;
use crate::{Outcome, folder, say, time};

/// The counted cases.
const CASES: [&str; 3] = ["json", "stream", "refused"];
/// The requests of the two runs.
const FEW: u64 = 50;
const MANY: u64 = 250;
/// Larger than a request or an answer.
const SINK_BYTES: usize = 8 * 1024;
/// The factor over the recorded count that counts as a regression.
const REGRESSION: f64 = 1.05;
/// The factor below which a new record is worthwhile.
const GAIN: f64 = 0.95;

/// Counts each case, and compares it with the record, or records it.
pub(crate) fn check(records: bool) -> Outcome<()> {
    let file = folder::root().join("bench/instructions.txt");
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    let of = |case: &str| -> Option<f64> {
        recorded.lines().find_map(|line| line.strip_prefix(case)?.trim().parse().ok())
    };
    let mut text = String::from(
        "# Instructions of a request in user space, by `make bench-check` (valgrind).\n",
    );
    let mut regressions = Vec::new();
    for case in CASES {
        let count = instructions(case)?;
        let _ = writeln!(text, "{case} {count:.0}");
        let before = of(case).unwrap_or(count);
        let ratio = count / before;
        let words = match ratio {
            more if more > REGRESSION => {
                regressions.push(case);
                "a regression"
            }
            less if less < GAIN => "a gain: record it with `make bench-record`",
            _ => "as recorded",
        };
        say(&format!(
            "{case:8} {count:>9.0} instructions a request, {} × what is recorded: {words}",
            short(ratio)
        ));
    }
    if records {
        std::fs::write(file, text)?;
        return Ok(());
    }
    if regressions.is_empty() {
        Ok(())
    } else {
        Err(format!("more than 5 % more instructions: {}", regressions.join(", ")).into())
    }
}

fn instructions(case: &str) -> Outcome<f64> {
    let many = collected(case, MANY)?;
    let few = collected(case, FEW)?;
    let requests = f64::from(u32::try_from(MANY - FEW)?);
    Ok((many - few) / requests)
}

fn collected(case: &str, requests: u64) -> Outcome<f64> {
    let own = std::env::current_exe()?;
    let log = folder::scratch()?.join("callgrind.log");
    output(
        Command::new("valgrind")
            .arg("--tool=callgrind")
            .arg("--callgrind-out-file=/dev/null")
            .arg(format!("--log-file={}", log.display()))
            .arg(own)
            .args(["path", case, &requests.to_string()]),
    )?;
    let said = std::fs::read_to_string(&log)?;
    let count = said.lines().find_map(|line| line.split("Collected :").nth(1));
    Ok(count.ok_or("valgrind counted nothing")?.trim().parse()?)
}

/// Serves this many requests of one kind.
pub(crate) fn run(case: &str, requests: &str) -> Outcome<()> {
    let requests: usize = requests.parse()?;
    let provider = TcpListener::bind("127.0.0.1:0")?;
    let state = folder::scratch()?.join("path-state");
    let text = format!(
        "settings: {{port: 0, state_dir: \"{}\", log_level: WARN}}\nproviders:\n  - {{name: P, type: anthropic, \
         base_url: \"http://{}\", auth_value: token}}\n",
        state.display(),
        provider.local_addr()?
    );
    let sources = Sources {
        environment: &|_| None,
        files: &|path| std::fs::read_to_string(path),
        now: evertoken::testing::Timestamp::from_secs(1_800_000_000),
        file_modes: &|_| None,
        file_mode: Some(0o600),
        is_root: false,
        working_folder: None,
    };
    let (config, _) =
        resolve(&text, "bench", &sources).map_err(|problems| format!("{problems:?}"))?;
    let limits = config.settings.limits.clone();
    let environment = Environment {
        clock: Clock::system(),
        rng: fastrand::Rng::with_seed(1),
        timer: crossbeam_channel::after,
        supervisor: Supervisor::nobody(),
    };
    let app = App::start(
        config,
        Vec::new(),
        environment,
        Box::new(|| Err(vec!["it is not read again".to_owned()])),
        || {},
    )
    .map_err(|error| error.to_string())?;
    let request = request(case);
    let answer = answer(case);
    time::spawn(move || answer_all(&provider, &answer))?;
    let (client, served) = pair()?;
    let feeding = Feeding {
        proxy: app.proxy(),
        request,
        client,
        left: AtomicUsize::new(requests),
        sink: Mutex::new(vec![0; SINK_BYTES]),
    };
    feeding.send_next()?;
    let live = Arc::new(Live::default());
    let served = Arc::new(served);
    let tally = Arc::<ListenerTally>::default().accept();
    let entry =
        live.enter(served.clone(), served.clone(), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), tally);
    serve_connection(Guest { stream: served, entry, read: Vec::new() }, &limits, &feeding);
    let left = feeding.left.load(Ordering::SeqCst);
    if left == 0 { Ok(()) } else { Err(format!("{left} requests were not served").into()) }
}

fn pair() -> Outcome<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

/// The request of an SDK.
fn request(case: &str) -> Vec<u8> {
    let body = format!("{{\"model\":\"m\",\"stream\":true,\"messages\":\"{}\"}}", "x".repeat(983));
    // A request that is refused before anything is sent on.
    let path = if case == "refused" { "/to/nobody/v1/messages" } else { "/v1/messages?beta=true" };
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: Anthropic/Python 0.76.0\r\nAccept: application/json\r\n\
         Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nX-Stainless-Lang: python\r\n\
         X-Stainless-Package-Version: 0.76.0\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n\
         X-Stainless-Runtime-Version: 3.11.2\r\nAuthorization: Bearer placeholder\r\nanthropic-version: 2023-06-01\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn answer(case: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\nrequest-id: req_011CQ\r\nanthropic-ratelimit-requests-limit: 50\r\n\
                anthropic-ratelimit-requests-remaining: 49\r\ncf-ray: 8f0\r\nserver: cloudflare\r\nx-robots-tag: none\r\n";
    if case != "stream" {
        let body = "y".repeat(1024);
        return format!(
            "{head}Content-Type: application/json\r\nContent-Length: 1024\r\n\r\n{body}"
        )
        .into_bytes();
    }
    let event = format!("event: content_block_delta\ndata: {}\n\n", "z".repeat(100));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    format!(
        "{head}Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(20)
    )
    .into_bytes()
}

/// The proxy, together with the client's end of its connection.
struct Feeding {
    proxy: Arc<Proxy>,
    request: Vec<u8>,
    client: TcpStream,
    left: AtomicUsize,
    /// Bytes that are read are dropped; the memory exists already, so that it costs nothing.
    sink: Mutex<Vec<u8>>,
}

impl Feeding {
    fn send_next(&self) -> std::io::Result<()> {
        (&self.client).write_all(&self.request)
    }

    fn drain(&self, mut stream: &TcpStream) -> std::io::Result<usize> {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        stream.read(&mut sink)
    }
}

/// Answers each request on the first connection, which is written in one piece.
fn answer_all(provider: &TcpListener, answer: &[u8]) -> std::io::Result<()> {
    let (mut stream, _) = provider.accept()?;
    let mut sink = vec![0; SINK_BYTES];
    while stream.read(&mut sink)? > 0 {
        stream.write_all(answer)?;
    }
    Ok(())
}

impl Service for Feeding {
    fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After {
        let after = self.proxy.serve(request, out);
        // The answer is taken, and the next request is sent, or the connection is closed.
        let taken = self.drain(&self.client);
        if taken.is_ok() && self.left.fetch_sub(1, Ordering::SeqCst) > 1 {
            let _ = self.send_next();
        } else {
            let _ = self.client.shutdown(std::net::Shutdown::Write);
        }
        after
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write) {
        self.proxy.refuse(refusal, head, out);
    }
}
