//! The metrics of listeners.

use crate::ingress::listeners::ListenerNow;
use crate::proxy::metrics::family::{Counter, FamilyText, Gauge};
use crate::proxy::metrics::values::{as_flag, as_float, seconds_since_1970};

/// The metrics of `listeners`, as they are now. One that a server does not count has no connections and no bytes here,
/// and a certificate is only there with TLS.
pub(super) fn families(listeners: &[ListenerNow<'_>]) -> [FamilyText; 7] {
    let mut open = Gauge::new(
        "evertoken_listener_connections",
        "Open connections of clients by the address that they came to",
        ["listener"],
    );
    let mut accepted = Counter::new(
        "evertoken_listener_accepted_total",
        "Connections of clients by the address that they came to",
        ["listener"],
    );
    let mut bytes = Counter::new(
        "evertoken_listener_bytes_total",
        "Bytes of clients' connections, without those of TLS itself: received from clients, and sent to them",
        ["direction", "listener"],
    );
    let mut failed = Counter::new(
        "evertoken_listener_failed_handshakes_total",
        "TLS handshakes with clients that did not succeed",
        ["listener"],
    );
    let mut begin = Gauge::new(
        "evertoken_certificate_begin_timestamp_seconds",
        "When the certificate that clients see begins to be valid, in seconds since 1970",
        ["listener"],
    );
    let mut expiry = Gauge::new(
        "evertoken_certificate_expiry_timestamp_seconds",
        "When the certificate that clients see expires, in seconds since 1970",
        ["listener"],
    );
    let mut usable = Gauge::new(
        "evertoken_certificate_files_usable",
        "1, or 0 where the files of the certificate hold another one now that can't be shown to clients",
        ["listener"],
    );
    for listener in listeners {
        let address = listener.bound.to_string();
        let address = address.as_str();
        // Sockets that were handed over may share their address.
        if let Some(counts) = listener.counts {
            *open.of([address]) += as_float(counts.open);
            *accepted.of([address]) += counts.accepted;
            *bytes.of(["received", address]) += counts.received_bytes;
            *bytes.of(["sent", address]) += counts.sent_bytes;
        }
        if let Some(certificate) = &listener.certificate {
            let validity = certificate.validity;
            *usable.of([address]) = as_flag(certificate.renewal_problem.is_none());
            *failed.of([address]) += listener.counts.map_or(0, |counts| counts.failed_handshakes);
            *begin.of([address]) = seconds_since_1970(validity.begins);
            *expiry.of([address]) = seconds_since_1970(validity.ends);
        }
    }
    [
        open.text(),
        accepted.text(),
        bytes.text(),
        failed.text(),
        begin.text(),
        expiry.text(),
        usable.text(),
    ]
}
