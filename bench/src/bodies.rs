//! Large bodies in both directions: their speed, and the memory that they take.

use crate::Outcome;
use crate::http::ask;
use crate::proxies::Subject;
use crate::time::now;

/// The size of a large body.
pub(crate) const LARGE_BYTES: u64 = 50 * 1024 * 1024;

/// Megabytes a second of one large answer.
pub(crate) fn download(subject: &Subject) -> Outcome<f64> {
    timed(subject, &format!("GET /bytes/{LARGE_BYTES} HTTP/1.1"), 0, LARGE_BYTES)
}

/// Megabytes a second of one large request.
pub(crate) fn upload(subject: &Subject) -> Outcome<f64> {
    timed(subject, "POST /upload HTTP/1.1", LARGE_BYTES, 2)
}

fn timed(subject: &Subject, head: &str, body_bytes: u64, expected: u64) -> Outcome<f64> {
    let begun = now();
    let (status, came) = ask(subject.address, head, body_bytes)?;
    let took = begun.elapsed().as_secs_f64();
    if (status, came) != (200, expected) {
        let name = subject.kind.name();
        return Err(format!("{name}: status {status} and {came} bytes for {head}").into());
    }
    Ok(f64::from(u32::try_from(LARGE_BYTES / 1_000_000)?) / took)
}
