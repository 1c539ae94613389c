//! Small requests by `wrk`: requests a second, their time, and their cost for the proxy.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::process::{Running, output};
use crate::proxies::{Kind, Subject};
use crate::{Outcome, folder};

/// The size of a request's body.
pub(crate) const BODY_BYTES: usize = 1024;

/// The result of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// Requests a second.
    pub(crate) per_second: f64,
    /// Median time of one.
    pub(crate) p50_us: f64,
    /// 99 % took less.
    pub(crate) p99_us: f64,
    /// 99.9 % took less.
    pub(crate) p999_us: f64,
    /// Processor time of the proxy for one.
    pub(crate) cpu_us: f64,
    /// The part of it that the kernel did not take.
    pub(crate) user_us: f64,
    /// Answers other than 2xx, and errors.
    pub(crate) errors: f64,
}

/// Loads `subject` over `connections` for `time`.
pub(crate) fn round(subject: &Subject, connections: usize, time: Duration) -> Outcome<Round> {
    let before = subject.running.as_ref().map(Running::usage);
    let path = if matches!(subject.kind, Kind::Litellm | Kind::Portkey) {
        "/v1/chat/completions"
    } else {
        "/json"
    };
    let mut round = load(subject.address, path, subject.provider, connections, time)?;
    if let (Some(before), Some(running)) = (before, &subject.running) {
        let requests = round.per_second * time.as_secs_f64();
        let (after, requests) = (running.usage(), requests.max(1.0));
        round.cpu_us = (after.cpu_s - before.cpu_s) * 1e6 / requests;
        round.user_us = (after.user_s - before.user_s) * 1e6 / requests;
    }
    Ok(round)
}

/// Loads the server at `to`; `provider` is the provider for Portkey's gateway.
pub(crate) fn load(
    to: SocketAddr,
    path: &str,
    provider: SocketAddr,
    connections: usize,
    time: Duration,
) -> Outcome<Round> {
    let script = folder::scratch()?.join("post.lua");
    // Fields that LiteLLM and Portkey look for; the others ignore them.
    let pad = "x".repeat(BODY_BYTES - 64);
    let body =
        format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{pad}\"}}]}}");
    let lua = format!(
        "wrk.method = \"POST\"\nwrk.headers[\"content-type\"] = \"application/json\"\n\
         wrk.headers[\"x-portkey-provider\"] = \"openai\"\nwrk.headers[\"authorization\"] = \"Bearer x\"\n\
         wrk.headers[\"x-portkey-custom-host\"] = \"{}\"\nwrk.body = '{body}'\n\
         function done(summary, latency, requests) print('p99.9: ' .. latency:percentile(99.9) .. 'us') end\n",
        format_args!("http://{provider}/v1")
    );
    std::fs::write(&script, lua)?;
    let said = output(
        Command::new("wrk")
            .arg("-t1")
            .arg(format!("-c{connections}"))
            .arg(format!("-d{}s", time.as_secs().max(1)))
            .args(["--latency", "--timeout", "20s", "-s"])
            .arg(&script)
            .arg(format!("http://{to}{path}")),
    )
    .map_err(|error| format!("{error} (wrk is in Debian's package of that name)"))?;
    read(&said).ok_or_else(|| format!("wrk said:\n{said}").into())
}

fn read(said: &str) -> Option<Round> {
    let after = |what: &str| {
        let line = said.lines().map(str::trim).find_map(|line| line.strip_prefix(what))?;
        line.split_whitespace().next()
    };
    let statuses = after("Non-2xx or 3xx responses:").and_then(|text| text.parse().ok());
    // `Socket errors: connect 0, read 3, write 0, timeout 0`
    let sockets = said.lines().find_map(|line| line.trim().strip_prefix("Socket errors:"));
    let sockets =
        sockets.unwrap_or_default().split([' ', ',']).filter_map(|word| word.parse::<f64>().ok());
    Some(Round {
        per_second: after("Requests/sec:")?.parse().ok()?,
        p50_us: micros(after("50%")?)?,
        p99_us: micros(after("99%")?)?,
        p999_us: micros(after("p99.9:")?)?,
        cpu_us: 0.0,
        user_us: 0.0,
        errors: statuses.unwrap_or(0.0) + sockets.sum::<f64>(),
    })
}

/// `12.34us`, `1.2ms`, `3.4s`.
fn micros(text: &str) -> Option<f64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(end);
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let said = "  Latency Distribution\n     50%  123.00us\n     99%    1.50ms\n  7 requests in 1s\n  Non-2xx or 3xx responses: 3\nRequests/sec:   4242.50\np99.9: 2500.5us\n";
        let round = read(said).unwrap();
        let broken =
            said.replace("  Non", "  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non");
        assert!((read(&broken).unwrap().errors - 10.0).abs() < 1e-6);
        let figures = [round.per_second, round.p50_us, round.p99_us, round.p999_us, round.errors];
        assert!(
            figures
                .iter()
                .zip([4242.5, 123.0, 1500.0, 2500.5, 3.0])
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
        assert!(read("unable to connect").is_none());
    }
}
