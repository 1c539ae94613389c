//! The addresses at which clients come, and the certificate that they see. Pure.

use serde::{Deserialize, Serialize};

use crate::bound::Bound;
use crate::clock::Timestamp;
use crate::ingress::listeners::ListenerNow;
use crate::report::words::{bytes, count, time, until};
use crate::tls::{CertificateNow, Validity};

/// The status of one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerReport {
    /// The address as bound: `http://127.0.0.1:8080`, `https://127.0.0.1:8443`, `unix:/run/evertoken.sock`.
    pub address: String,
    /// The address as configured; None if a service manager handed the socket over.
    pub configured: Option<String>,
    /// `tcp` or `unix`.
    pub kind: String,
    /// True if its clients speak TLS.
    pub tls: bool,
    /// True if a service manager handed the socket over.
    pub handed_over: bool,
    /// Its connections; None if the server does not count them.
    pub connections: Option<ConnectionsReport>,
    /// The certificate that its clients see.
    pub certificate: Option<CertificateReport>,
}

/// The connections of a listener since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConnectionsReport {
    /// Those that are open.
    pub open: u64,
    /// All of them.
    pub total: u64,
    /// Bytes from clients, without those of TLS itself.
    pub received_bytes: u64,
    /// Bytes to clients, without those of TLS itself.
    pub sent_bytes: u64,
    /// TLS handshakes that did not succeed.
    pub failed_handshakes: u64,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateReport {
    /// The time from which on it is valid.
    pub begins_at: Timestamp,
    /// Its end.
    pub expires_at: Timestamp,
    /// The time left until then.
    pub expires_in_seconds: Option<i64>,
    /// Its problem, now or soon.
    pub problem: Option<String>,
    /// The reason why clients do not see what its files hold now. An older evertoken says nothing about it.
    #[serde(default)]
    pub renewal_problem: Option<String>,
}

impl ListenerReport {
    /// The report of a listener.
    pub(crate) fn of(listener: &ListenerNow<'_>, now: Timestamp) -> Self {
        let counts = listener.counts.map(|counts| ConnectionsReport {
            open: counts.open,
            total: counts.accepted,
            received_bytes: counts.received_bytes,
            sent_bytes: counts.sent_bytes,
            failed_handshakes: counts.failed_handshakes,
        });
        let is_unix = matches!(listener.bound, Bound::Unix(_));
        Self {
            address: listener.bound.to_string(),
            configured: listener.configured.map(str::to_owned),
            kind: if is_unix { "unix" } else { "tcp" }.to_owned(),
            tls: matches!(listener.bound, Bound::Tls(_)),
            handed_over: listener.is_handed,
            connections: counts,
            certificate: listener.certificate.clone().map(|one| CertificateReport::of(one, now)),
        }
    }

    /// The report without what changes by the look at it alone, or by time. A look may take a connection and a
    /// handshake, which a browser may break off.
    pub(super) fn at_rest(&mut self) {
        self.connections = None;
        if let Some(certificate) = &mut self.certificate {
            certificate.expires_in_seconds = None;
        }
    }

    /// The remarks on it besides its address and its numbers.
    pub(crate) fn remarks(&self, now: Timestamp) -> Vec<String> {
        let mut remarks = Vec::new();
        // `127.0.0.1:8080` says no more than `http://127.0.0.1:8080`.
        let configured = self.configured.as_ref().filter(|one| !self.address.ends_with(&**one));
        remarks.extend(configured.map(|address| format!("configured as {address}")));
        if self.handed_over {
            remarks.push("handed over by the service manager".to_owned());
        }
        match self.connections.map_or(0, |one| one.failed_handshakes) {
            0 => {}
            1 => remarks.push("1 handshake failed".to_owned()),
            failed => remarks.push(format!("{} handshakes failed", count(failed))),
        }
        if let Some(certificate) = self.certificate.as_ref() {
            remarks.push(match certificate.expires_at.millis_since(now) {
                ..0 => "certificate expired".to_owned(),
                _ => format!("certificate expires in {}", until(certificate.expires_at, now)),
            });
        }
        remarks
    }

    /// `http://127.0.0.1:8080: 3 open of 1,234 connections; 1.2 MB in, 3.4 MB out`, and the remarks.
    pub(crate) fn line(&self, now: Timestamp) -> String {
        let counts = self.connections.map(|one| {
            let (open, total) = (count(one.open), count(one.total));
            let (received, sent) = (bytes(one.received_bytes), bytes(one.sent_bytes));
            format!("{open} open of {total} connections; {received} in, {sent} out")
        });
        let parts: Vec<_> = counts.into_iter().chain(self.remarks(now)).collect();
        if parts.is_empty() {
            return self.address.clone();
        }
        format!("{}: {}", self.address, parts.join("; "))
    }
}

impl CertificateReport {
    fn of(certificate: CertificateNow, now: Timestamp) -> Self {
        let CertificateNow { validity, renewal_problem } = certificate;
        let Validity { begins, ends } = validity;
        let problem = validity.doubt(now).or_else(|| {
            let soon = validity.ends_soon(now);
            soon.then(|| format!("expires at {} UTC; replace it before that", time(ends, now)))
        });
        Self {
            begins_at: begins,
            expires_at: ends,
            expires_in_seconds: Some(ends.millis_since(now) / 1000),
            problem: problem.map(|what| format!("The certificate of settings.tls {what}")),
            renewal_problem,
        }
    }
}

/// The problems of the certificate, which all of `listeners` have in common, and of its renewal.
pub(crate) fn certificate_problems(listeners: &[ListenerReport]) -> impl Iterator<Item = &str> {
    let certificate = listeners.iter().find_map(|one| one.certificate.as_ref());
    certificate
        .into_iter()
        .flat_map(|one| one.problem.iter().chain(&one.renewal_problem))
        .map(String::as_str)
}

/// The value of [`ListenerReport`] for tests: with TLS, at noon with three days left.
#[cfg(test)]
pub(crate) fn sample() -> ListenerReport {
    const NOON: i64 = 1_800_014_400;
    let validity = Validity {
        begins: Timestamp::from_secs(NOON - 87 * 86_400),
        ends: Timestamp::from_secs(NOON + 3 * 86_400),
    };
    ListenerReport {
        address: "https://127.0.0.1:8443".to_owned(),
        configured: Some("<localhost>:8443".to_owned()),
        kind: "tcp".to_owned(),
        tls: true,
        handed_over: false,
        connections: Some(ConnectionsReport {
            open: 3,
            total: 1234,
            received_bytes: 1_234_567,
            sent_bytes: 999,
            failed_handshakes: 2,
        }),
        certificate: Some(CertificateReport::of(
            CertificateNow { validity, renewal_problem: None },
            Timestamp::from_secs(NOON),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_in_a_line() {
        let now = Timestamp::from_secs(1_800_014_400);
        let mut listener = sample();
        assert_eq!(
            listener.line(now),
            "https://127.0.0.1:8443: 3 open of 1,234 connections; 1.2 MB in, 999 B out; configured as <localhost>:8443; \
             2 handshakes failed; certificate expires in 3 d 00 h"
        );
        listener.configured = Some("127.0.0.1:8443".to_owned());
        listener.certificate = None;
        listener.connections =
            Some(ConnectionsReport { failed_handshakes: 1, ..Default::default() });
        listener.handed_over = true;
        assert_eq!(
            listener.line(now),
            "https://127.0.0.1:8443: 0 open of 0 connections; 0 B in, 0 B out; handed over by the service manager; \
             1 handshake failed"
        );
        (listener.connections, listener.handed_over) = (None, false);
        assert_eq!(listener.line(now), "https://127.0.0.1:8443", "the server does not count");
    }

    #[test]
    fn a_certificate_that_ends_is_a_problem_in_time() {
        let noon = Timestamp::from_secs(1_800_014_400);
        let at = |days: i64| Timestamp::from_secs(1_800_014_400 + days * 86_400);
        let problem = |begins: i64, ends: i64| {
            let validity = Validity { begins: at(begins), ends: at(ends) };
            CertificateReport::of(CertificateNow { validity, renewal_problem: None }, noon).problem
        };
        assert_eq!(problem(-60, 30), None);
        assert_eq!(
            problem(-87, 3).unwrap(),
            "The certificate of settings.tls expires at 18 Jan 12:00 UTC; replace it before that"
        );
        for (begins, ends, part) in [(-90, -1, "expired at"), (1, 90, "is valid from")] {
            let told = problem(begins, ends).unwrap();
            assert!(told.contains(part) && told.contains("clients refuse it"), "{told}");
        }
        let mut listener = sample();
        let told = |listener: &ListenerReport| {
            let both = [listener.clone(), listener.clone()];
            certificate_problems(&both).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(&listener).len(), 1);
        let failed = "'c' can't be used; the one before it is still shown".to_owned();
        listener.certificate.as_mut().unwrap().renewal_problem = Some(failed.clone());
        assert_eq!(told(&listener)[1..], [failed]);
        listener.certificate = None;
        assert_eq!(told(&listener), [""; 0]);
    }
}
