//! TLS at our own addresses (`settings.tls`): the certificate that clients see, and trust in exactly this one for
//! evertoken's own questions to itself.

mod certificate;
mod trust;
mod validity;

pub(crate) use certificate::{CertificateNow, OwnCertificate};
pub(crate) use trust::{ReadWrite, ask, trusting};
pub(crate) use validity::Validity;
