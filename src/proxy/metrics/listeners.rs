//! The metrics of listeners.

use prometheus::Registry;

use crate::ingress::listeners::ListenerNow;
use crate::proxy::metrics::families::{as_float, counter_by, gauge_by, seconds_since_1970};

const LISTENER: &str = "listener";

/// Adds the metrics of `listeners`, as they are now. One that a server does not count has no connections and no bytes
/// here, and a certificate is only there with TLS.
pub(super) fn add(registry: &Registry, listeners: &[ListenerNow<'_>]) {
    let open = gauge_by(
        registry,
        "evertoken_listener_connections",
        "Open connections of clients by the address that they came to",
        &[LISTENER],
    );
    let accepted = counter_by(
        registry,
        "evertoken_listener_accepted_total",
        "Connections of clients by the address that they came to",
        &[LISTENER],
    );
    let bytes = counter_by(
        registry,
        "evertoken_listener_bytes_total",
        "Bytes of clients' connections, without those of TLS itself: received from clients, and sent to them",
        &[LISTENER, "direction"],
    );
    let failed = counter_by(
        registry,
        "evertoken_listener_failed_handshakes_total",
        "TLS handshakes with clients that did not succeed",
        &[LISTENER],
    );
    let certificate = |name, help| gauge_by(registry, name, help, &[LISTENER]);
    let begin = certificate(
        "evertoken_certificate_begin_timestamp_seconds",
        "When the certificate that clients see begins to be valid, in seconds since 1970",
    );
    let expiry = certificate(
        "evertoken_certificate_expiry_timestamp_seconds",
        "When the certificate that clients see expires, in seconds since 1970",
    );
    let usable = certificate(
        "evertoken_certificate_files_usable",
        "1, or 0 where the files of the certificate hold another one now that can't be shown to clients",
    );
    for listener in listeners {
        let address = listener.bound.to_string();
        let address = address.as_str();
        if let Some(counts) = listener.counts {
            open.with_label_values(&[address]).set(as_float(counts.open));
            accepted.with_label_values(&[address]).inc_by(counts.accepted);
            bytes.with_label_values(&[address, "received"]).inc_by(counts.received_bytes);
            bytes.with_label_values(&[address, "sent"]).inc_by(counts.sent_bytes);
        }
        if let Some(certificate) = &listener.certificate {
            let validity = certificate.validity;
            let is_usable = certificate.renewal_problem.is_none();
            usable.with_label_values(&[address]).set(f64::from(u8::from(is_usable)));
            failed
                .with_label_values(&[address])
                .inc_by(listener.counts.map_or(0, |counts| counts.failed_handshakes));
            begin.with_label_values(&[address]).set(seconds_since_1970(validity.begins));
            expiry.with_label_values(&[address]).set(seconds_since_1970(validity.ends));
        }
    }
}
