//! The one log line of an exchange, made of safe fields only.

use std::fmt;
use std::time::Duration;

/// What is told of an exchange: nothing that could hold a secret (no query, no header).
#[derive(Debug)]
pub struct Summary<'a> {
    /// The method.
    pub method: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// The provider's name; None for what the proxy answered itself.
    pub provider: Option<&'a str>,
    /// The status that was sent; None where the client had gone before.
    pub status: Option<u16>,
    /// Body bytes sent to the client.
    pub sent_bytes: u64,
    /// From the request head to the response head.
    pub first_byte: Option<Duration>,
    /// From the request head to the end.
    pub total: Duration,
    /// How many times the request was sent.
    pub attempts: u32,
    /// Why it ended early, where it did.
    pub cut: Option<&'a str>,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> ", self.method.escape_default(), self.path.escape_default())?;
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("nothing")?,
        }
        if let Some(provider) = self.provider {
            write!(f, " from {provider}")?;
        }
        write!(f, ", {} B in {:.3} s", self.sent_bytes, self.total.as_secs_f64())?;
        if let Some(first_byte) = self.first_byte {
            write!(f, " (head after {:.3} s)", first_byte.as_secs_f64())?;
        }
        if self.attempts > 1 {
            write!(f, ", sent {} times", self.attempts)?;
        }
        self.cut.map_or(Ok(()), |cut| write!(f, ", cut off: {cut}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let summary = Summary {
            method: "POST",
            path: "/v1/messages",
            provider: Some("P"),
            status: Some(200),
            sent_bytes: 12,
            first_byte: Some(Duration::from_millis(5)),
            total: Duration::from_millis(1500),
            attempts: 2,
            cut: Some("the client went away"),
        };
        assert_eq!(
            summary.to_string(),
            "POST /v1/messages -> 200 from P, 12 B in 1.500 s (head after 0.005 s), sent 2 times, \
             cut off: the client went away"
        );
    }
}
