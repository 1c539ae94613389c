//! Proxies and trusted roots of endpoints. Pure.

use std::sync::Arc;

use crate::config::client_certificate::ClientCertificateFiles;
use crate::config::loopback::{is_loopback_host, is_metadata_host};
use crate::config::no_proxy::NoProxy;
use crate::secret::Secret;

/// Proxy and roots of one provider's endpoints, including the token endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// The proxy.
    pub proxy: ProxyRule,
    /// PEM text of the roots that replace the built-in ones: `settings.tls_roots: "system"`.
    pub system_roots_pem: Option<Arc<str>>,
    /// PEM text of additional trusted roots.
    pub extra_roots_pem: Option<String>,
    /// Our own certificate, for questions to evertoken itself.
    pub own_certificate: Option<OwnTrust>,
    /// The client's certificate, for servers that ask for one.
    pub client_certificate: Option<ClientCertificateFiles>,
}

/// Trust in one certificate, whatever its name, issuer and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTrust {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// No other certificate is trusted.
    pub is_only: bool,
}

/// The choice of a proxy for an endpoint. The URLs may hold passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyRule {
    /// No proxy.
    #[default]
    Direct,
    /// The provider's own proxy, for all its endpoints.
    Always(Secret),
    /// A proxy that was not chosen for this provider in particular: not used for this machine and for the hosts in
    /// `except`.
    Shared {
        /// For https URLs.
        https: Option<Secret>,
        /// For http URLs.
        http: Option<Secret>,
        /// The hosts in `no_proxy`.
        except: NoProxy,
    },
}

impl ProxyRule {
    /// The proxy for https URLs, or for http URLs.
    pub fn url(&self, is_tls: bool) -> Option<&Secret> {
        match self {
            Self::Direct => None,
            Self::Always(url) => Some(url),
            Self::Shared { https, http, .. } => if is_tls { https } else { http }.as_ref(),
        }
    }

    /// True if the rule applies to `host`, a name or an address without brackets, at `port`.
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Direct => false,
            Self::Always(_) => true,
            Self::Shared { except, .. } => {
                let host_name = host.trim_end_matches('.').to_ascii_lowercase();
                let is_here = is_loopback_host(&host_name) || host_name.ends_with(".localhost");
                // A proxy would ask for the identity of its own machine.
                !is_here && !is_metadata_host(&host_name) && !except.covers(host, port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_proxy_is_for_whom() {
        let url = |text: &str| Some(Secret::new(text));
        let shared = ProxyRule::Shared {
            https: url("http://s"),
            http: url("http://p"),
            except: NoProxy::parse("internal.test"),
        };
        assert_eq!(
            (shared.url(true), shared.url(false)),
            (url("http://s").as_ref(), url("http://p").as_ref())
        );
        for (host, expected) in [
            ("api.test", true),
            ("192.0.2.1", true),
            ("internal.test", false),
            ("localhost", false),
            ("LocalHost.", false),
            ("x.localhost", false),
            ("127.0.0.9", false),
            ("::1", false),
            ("169.254.169.254", false),
            ("Metadata.Google.Internal", false),
            ("169.255.0.1", true),
            ("fd00:ec2::254", false),
            ("fd00:ec3::254", true),
            ("fe80::1", false),
        ] {
            assert_eq!(shared.is_for(host, 443), expected, "{host}");
            assert!(ProxyRule::Always(Secret::new("http://a")).is_for(host, 443), "{host}");
            assert!(!ProxyRule::Direct.is_for(host, 443), "{host}");
        }
    }
}
