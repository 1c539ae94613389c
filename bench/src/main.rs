//! Measures what evertoken adds: requests a second, the time of one request, the delay of an event.
//!
//! Everything is on 127.0.0.1, bounded in time, and each figure is taken direct and through the proxy
//! in turn. `bench BINARY` measures that binary; the default is `target/release/evertoken`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_secs(3);
const CONNECTIONS: [usize; 3] = [1, 32, 256];
const STREAMS: usize = 100;
const EVENTS: usize = 20;
const EVENT_GAP: Duration = Duration::from_millis(50);
const BODY_BYTES: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(20);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let binary = std::env::args().nth(1).unwrap_or_else(|| "target/release/evertoken".to_owned());
    match run(&binary) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn run(binary: &str) -> Outcome<()> {
    let upstream = start_upstream()?;
    let folder = std::env::temp_dir().join(format!("evertoken-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let config = format!(
        "settings: {{port: 0, state_dir: \"{}\", log_level: WARN}}\nproviders:\n  - {{name: P, type: \
         generic, base_url: \"http://{upstream}\", auth_value: token}}\n",
        folder.display()
    );
    std::fs::write(folder.join("providers.yaml"), config)?;
    let (mut child, proxy) = start_proxy(binary, &folder)?;
    let measured = measure(upstream, proxy, child.id());
    child.kill()?;
    child.wait()?;
    std::fs::remove_dir_all(&folder)?;
    measured
}

fn measure(upstream: SocketAddr, proxy: SocketAddr, id: u32) -> Outcome<()> {
    say(&format!("POST {BODY_BYTES} B, answer {BODY_BYTES} B, {} s a round", ROUND.as_secs()));
    for connections in CONNECTIONS {
        let (direct, _) = load(upstream, connections);
        let (through, p50) = load(proxy, connections);
        say(&format!(
            "{connections:>4} connections: {direct:>8.0} requests/s direct, {through:>8.0} through \
             evertoken, p50 {p50:>6.0} µs"
        ));
    }
    for (name, address) in [("direct", upstream), ("through evertoken", proxy)] {
        let mut delays = stream_delays(address);
        delays.sort_unstable();
        let at = |part: usize| delays.get(delays.len() * part / 100).copied().unwrap_or_default();
        say(&format!(
            "{STREAMS} streams {name}: an event takes {} µs (p50), {} µs (p99)",
            at(50).as_micros(),
            at(99).as_micros()
        ));
    }
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident =
        status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or("VmHWM: unknown");
    say(&format!("largest resident size of evertoken: {}", resident[6..].trim()));
    Ok(())
}

fn start_proxy(binary: &str, folder: &std::path::Path) -> Outcome<(Child, SocketAddr)> {
    let binary = std::fs::canonicalize(binary)?;
    let mut child = Command::new(binary)
        .args(["run"])
        .current_dir(folder)
        .env("RUST_LOG", "evertoken::app=info,warn")
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().ok_or("no stderr")?;
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        if let Some(address) = line.split("Listening on http://").nth(1) {
            return Ok((child, address.parse()?));
        }
    }
    Err("evertoken did not start".into())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is about real time and plain threads")]
fn spawn<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(body)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark is about real time")]
fn now() -> Instant {
    Instant::now()
}

/// Answers `/stream` with events that hold the time they were sent, and everything else with 1 KB.
fn start_upstream() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            spawn(move || drop(serve(stream)));
        }
    });
    Ok(address)
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {BODY_BYTES}\r\n\r\n{}",
        "y".repeat(BODY_BYTES)
    );
    loop {
        let mut length = 0;
        let mut is_stream = false;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            is_stream |= line.contains(" /stream ");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if is_stream {
            send_events(reader.get_mut())?;
        } else {
            reader.get_mut().write_all(answer.as_bytes())?;
        }
    }
}

fn epoch_nanos() -> u128 {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    ORIGIN.get_or_init(now).elapsed().as_nanos()
}

#[expect(clippy::disallowed_methods, reason = "events are sent at a pace")]
fn send_events(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    for _ in 0..EVENTS {
        let event = format!("{:020}\n", epoch_nanos());
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        std::thread::sleep(EVENT_GAP);
    }
    stream.write_all(b"0\r\n\r\n")
}

/// Requests a second, and the median time of one in microseconds.
fn load(address: SocketAddr, connections: usize) -> (f64, f64) {
    let count = Arc::new(AtomicU64::new(0));
    let begun = now();
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let count = count.clone();
            spawn(move || request_until(address, begun + ROUND, &count).unwrap_or_default())
        })
        .collect();
    let mut times: Vec<Duration> =
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
    let done = count.load(Ordering::Relaxed) as f64;
    (done / begun.elapsed().as_secs_f64(), median.as_secs_f64() * 1e6)
}

fn request_until(
    address: SocketAddr,
    until: Instant,
    count: &AtomicU64,
) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: {BODY_BYTES}\r\n\r\n{}",
        "x".repeat(BODY_BYTES)
    );
    let mut times = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while now() < until {
        let begun = now();
        stream.write_all(request.as_bytes())?;
        let mut held = 0;
        loop {
            held += stream.read(&mut buffer[held..])?;
            let ends = buffer[..held].windows(4).position(|four| four == b"\r\n\r\n");
            if ends.is_some_and(|at| held >= at + 4 + BODY_BYTES) {
                break;
            }
        }
        times.push(begun.elapsed());
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(times)
}

/// How long each event of many streams was on its way.
fn stream_delays(address: SocketAddr) -> Vec<Duration> {
    let workers: Vec<_> =
        (0..STREAMS).map(|_| spawn(move || read_events(address).unwrap_or_default())).collect();
    workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
}

fn read_events(address: SocketAddr) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut delays = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line == "0" {
            break;
        }
        if let Some(sent) = (line.len() == 20).then(|| line.parse::<u128>().ok()).flatten() {
            let nanos = epoch_nanos().saturating_sub(sent);
            delays.push(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        }
    }
    Ok(delays)
}
