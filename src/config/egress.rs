//! How endpoints are reached: through which proxy, and who is trusted over TLS. Pure.

use std::sync::Arc;

use crate::config::loopback::is_loopback_host;
use crate::config::no_proxy::NoProxy;
use crate::secret::Secret;

/// How one provider's endpoints are reached, the token endpoint included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Through which proxy.
    pub proxy: ProxyRule,
    /// PEM text of the roots in the place of the built-in ones: `settings.tls_roots: "system"`.
    pub system_roots_pem: Option<Arc<str>>,
    /// PEM text of more trusted roots.
    pub extra_roots_pem: Option<String>,
}

/// Which proxy is used for an endpoint. The URLs may hold passwords.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyRule {
    /// None.
    #[default]
    Direct,
    /// A provider's own, for all its endpoints.
    Always(Secret),
    /// One that was not chosen for the provider in particular: not for this machine, and not for the hosts of `except`.
    Shared {
        /// For https URLs.
        https: Option<Secret>,
        /// For http URLs.
        http: Option<Secret>,
        /// The hosts of `no_proxy`.
        except: NoProxy,
    },
}

impl ProxyRule {
    /// The URL of the proxy for URLs that begin with https, or with http.
    pub fn url(&self, is_tls: bool) -> Option<&Secret> {
        match self {
            Self::Direct => None,
            Self::Always(url) => Some(url),
            Self::Shared { https, http, .. } => if is_tls { https } else { http }.as_ref(),
        }
    }

    /// Whether it is used for `host`, a name or an address without brackets, at `port`.
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Direct => false,
            Self::Always(_) => true,
            Self::Shared { except, .. } => {
                let host_name = host.trim_end_matches('.').to_ascii_lowercase();
                let is_here = is_loopback_host(&host_name) || host_name.ends_with(".localhost");
                !is_here && !except.covers(host, port)
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
        ] {
            assert_eq!(shared.is_for(host, 443), expected, "{host}");
            assert!(ProxyRule::Always(Secret::new("http://a")).is_for(host, 443), "{host}");
            assert!(!ProxyRule::Direct.is_for(host, 443), "{host}");
        }
    }
}
