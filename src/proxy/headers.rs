//! The header fields that cross in each direction: hop-by-hop fields and client credentials are removed, and the
//! token is added.

use crate::config::request_fields::FieldValue;
use crate::config::{AuthType, Credential, ProviderConfig, ProviderKind};
use crate::http::message::{Headers, members};
use crate::http::name_filter::NameFilter;
use crate::http::selected::Selected;
use crate::http::websocket::PROTOCOL_FIELD;
use crate::proxy::inbound_keys::{self, CREDENTIAL_FIELDS};
use crate::secret::Secret;
use crate::swar::is_same_but_for_case;

/// Fields that belong to one connection (RFC 9110 §7.6.1), or to a proxy's own authentication.
const HOP_BY_HOP: [&str; 10] = [
    "connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade",
    "trailer", "trailers", "proxy-authorization", "proxy-authenticate",
];

/// Request fields that the proxy sets itself, besides the hop-by-hop ones.
const OURS: [&str; 3] = ["host", "content-length", "expect"];

/// A look at these that rules most fields out.
const OWN_FILTER: NameFilter = NameFilter::of(&OURS).and(NameFilter::of(&CREDENTIAL_FIELDS));

/// Request fields with a list, in which the client's and the configured members are merged.
const LISTS: [&str; 1] = ["anthropic-beta"];

/// The usual size of the proxy's own fields: a token.
const OWN_COMMON_BYTES: usize = 256;

/// The fields that may not cross: hop-by-hop fields, and those that `Connection` names.
struct HopByHop {
    /// The names in `Connection`.
    others: Vec<Vec<u8>>,
    filter: NameFilter,
}

impl HopByHop {
    fn of(headers: &Headers) -> Self {
        const FILTER: NameFilter = NameFilter::of(&HOP_BY_HOP);
        let mut hop_by_hop = Self { others: Vec::new(), filter: FILTER };
        let is_name = |member: &&[u8]| !matches!(*member, b"keep-alive" | b"close");
        // Most clients and servers name no fields.
        for value in headers.all("connection").filter(is_name) {
            for member in members(value).filter(is_name) {
                hop_by_hop.filter = hop_by_hop.filter.with(member);
                hop_by_hop.others.push(member.to_vec());
            }
        }
        hop_by_hop
    }

    #[inline]
    fn holds(&self, name: &[u8]) -> bool {
        self.filter.may_hold(name) && self.lists(name)
    }

    fn lists(&self, name: &[u8]) -> bool {
        HOP_BY_HOP.iter().any(|own| is_same_but_for_case(name, own.as_bytes()))
            || self.others.iter().any(|other| is_same_but_for_case(other, name))
    }
}

/// The header fields for a provider.
#[derive(Debug)]
pub(crate) struct OutgoingFields<'a> {
    /// The client's fields, as they came.
    pub passed_on: Selected<'a>,
    /// The proxy's own fields.
    pub own: Headers,
}

impl OutgoingFields<'_> {
    /// Replaces all fields called `name` by one.
    fn set(&mut self, name: &str, value: &[&[u8]]) {
        self.remove(name);
        self.own.push_parts(name.as_bytes(), value);
    }

    /// Removes all fields called `name`.
    pub(crate) fn remove(&mut self, name: &str) {
        self.passed_on.remove(name.as_bytes());
        self.own.remove(name);
    }

    /// Removes clients' credentials and `keys` from the subprotocols of a WebSocket.
    // Not inlined: few requests need it.
    #[inline(never)]
    fn take_keys_out_of_protocols(&mut self, keys: &[Secret], passthrough: bool) {
        let own = &mut self.own;
        self.passed_on.retain(|name, value| {
            let is_list = is_same_but_for_case(name, PROTOCOL_FIELD.as_bytes());
            if is_list
                && let Some(left) = inbound_keys::protocols_without_keys(value, keys, passthrough)
            {
                own.push(name, left);
            }
            !is_list
        });
    }

    /// Removes fields that hold one of `keys`, and of cookies only those that do.
    fn take_out(&mut self, keys: &[Secret]) {
        let own = &mut self.own;
        self.passed_on.retain(|name, value| {
            let holds = inbound_keys::holds(value, keys) || inbound_keys::holds(name, keys);
            if holds
                && is_same_but_for_case(name, b"cookie")
                && let Some(cookies) = inbound_keys::without_keys(value, keys)
            {
                own.push(name, cookies);
            }
            !holds
        });
    }
}

/// The credential field of `provider`: its name, and the text before the credential.
pub(crate) fn credential_field(provider: &ProviderConfig) -> Option<(&str, &str)> {
    let usual = match (provider.auth_type, provider.kind) {
        (AuthType::None, _) => return None,
        (AuthType::ApiKey, ProviderKind::Anthropic) => "x-api-key",
        (AuthType::AuthToken | AuthType::ApiKey, _) => "authorization",
    };
    let name = provider.auth_header.as_deref().unwrap_or(usual);
    let is_authorization = is_same_but_for_case(name.as_bytes(), b"authorization");
    let prefix = if is_authorization { "Bearer " } else { "" };
    Some((name, provider.auth_prefix.as_deref().unwrap_or(prefix)))
}

/// The fields for `provider`, made from a client's `headers`.
///
/// `credential` is the token to add. With None, the request has no credential, or for a passthrough provider the
/// client's own, but never one of the `inbound_keys`. `claims` are the values of the provider's fields with claims of
/// the token.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(crate) fn to_upstream<'a>(
    headers: &'a Headers,
    provider: &ProviderConfig,
    credential: Option<&Secret>,
    claims: Option<&[Option<String>]>,
    inbound_keys: &[Secret],
) -> OutgoingFields<'a> {
    let passthrough = matches!(provider.credential, Credential::Passthrough);
    let hop_by_hop = HopByHop::of(headers);
    let stays_here = |name: &[u8]| {
        let is = |other: &&str| is_same_but_for_case(name, other.as_bytes());
        let is_own = || OURS.iter().any(is) || !passthrough && CREDENTIAL_FIELDS.iter().any(is);
        hop_by_hop.holds(name) || OWN_FILTER.may_hold(name) && is_own()
    };
    let mut passed_on = Selected::all(headers);
    passed_on.leave_out(|line| stays_here(line.name()));
    let own = Headers::with_room(provider.headers.len() + 1, OWN_COMMON_BYTES);
    let mut sent = OutgoingFields { passed_on, own };
    if headers.contains(PROTOCOL_FIELD) {
        sent.take_keys_out_of_protocols(inbound_keys, passthrough);
    }
    if !inbound_keys.is_empty() {
        sent.take_out(inbound_keys);
    }
    for (index, (name, value)) in provider.headers.iter().enumerate() {
        let value = match value {
            FieldValue::Text(text) => Some(text.as_str()),
            FieldValue::Claims(_) => claims.and_then(|claims| claims.get(index)?.as_deref()),
            FieldValue::Removed => None,
        };
        match value {
            Some(value) if LISTS.iter().any(|list| name.eq_ignore_ascii_case(list)) => {
                let value = merged(&sent.passed_on, name, value);
                sent.set(name, &[value.as_bytes()]);
            }
            Some(value) => sent.set(name, &[value.as_bytes()]),
            None => sent.remove(name),
        }
    }
    if let (Some(credential), Some((name, prefix))) = (credential, credential_field(provider)) {
        sent.set(name, &[prefix.as_bytes(), credential.expose().as_bytes()]);
    }
    sent
}

/// The client's members of the list, followed by the members of `configured` that it lacks.
fn merged(passed_on: &Selected<'_>, name: &str, configured: &str) -> String {
    let mut lists = Headers::new();
    let is_called = |(own, _): &(&[u8], &[u8])| is_same_but_for_case(own, name.as_bytes());
    for (own, value) in passed_on.iter().filter(is_called) {
        lists.push(own, value);
    }
    let mut members: Vec<String> =
        lists.list(name).map(|member| String::from_utf8_lossy(member).into_owned()).collect();
    for member in configured.split(',').map(str::trim).filter(|member| !member.is_empty()) {
        if !members.iter().any(|known| known == member) {
            members.push(member.to_owned());
        }
    }
    members.join(",")
}

/// Removes the fields that do not cross to the client. `Content-Length` stays; the reply corrects it if its framing
/// differs.
pub(crate) fn to_client(headers: &mut Headers) {
    let hop_by_hop = HopByHop::of(headers);
    headers.retain(|name, _| !hop_by_hop.holds(name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Egress, ProviderTimeouts};

    fn provider(
        kind: ProviderKind,
        auth_type: AuthType,
        headers: &[(&str, &str)],
    ) -> ProviderConfig {
        ProviderConfig {
            name: "p".into(),
            slug: "p".into(),
            kind,
            base_url: "http://x".into(),
            enabled: true,
            auth_type,
            credential: Credential::None,
            auth_header: None,
            auth_prefix: None,
            headers: headers
                .iter()
                .map(|(n, v)| ((*n).into(), FieldValue::Text((*v).into())))
                .collect(),
            query: Vec::new(),
            egress: Egress::default(),
            max_in_flight: 1,
            weight: 1,
            websocket: true,
            timeouts: ProviderTimeouts::default(),
        }
    }

    fn of(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        headers
    }

    /// The fields that are sent, in order.
    fn to_upstream(
        headers: &Headers,
        provider: &ProviderConfig,
        credential: Option<&Secret>,
        inbound_keys: &[Secret],
    ) -> Headers {
        let sent = super::to_upstream(headers, provider, credential, None, inbound_keys);
        let mut all = Headers::new();
        for (name, value) in sent.passed_on.iter().chain(sent.own.iter()) {
            all.push(name, value);
        }
        all
    }

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let client = of(&[
            ("Host", "a"),
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "5"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Proxy-Authorization", "p"),
            ("Proxy-Connection", "x"),
            ("Trailer", "t"),
            ("Content-Length", "3"),
            ("Expect", "100-continue"),
            ("Authorization", "Bearer client"),
            ("X-Api-Key", "client"),
            ("X-Kept", "1"),
            ("X-Kept", "2"),
            ("Accept-Encoding", "br"),
        ]);
        let provider = provider(ProviderKind::Anthropic, AuthType::AuthToken, &[]);
        let sent = to_upstream(&client, &provider, Some(&Secret::new("tok")), &[]);
        let expected = of(&[
            ("X-Kept", "1"),
            ("X-Kept", "2"),
            ("Accept-Encoding", "br"),
            ("authorization", "Bearer tok"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn the_credential_by_auth_type_and_kind() {
        let cases = [
            (ProviderKind::Anthropic, AuthType::AuthToken, Some(("authorization", "Bearer t"))),
            (ProviderKind::Anthropic, AuthType::ApiKey, Some(("x-api-key", "t"))),
            (ProviderKind::OpenAi, AuthType::ApiKey, Some(("authorization", "Bearer t"))),
            (ProviderKind::Generic, AuthType::AuthToken, Some(("authorization", "Bearer t"))),
            (ProviderKind::Generic, AuthType::None, None),
        ];
        for (kind, auth_type, expected) in cases {
            let provider = provider(kind, auth_type, &[]);
            let sent = to_upstream(&Headers::new(), &provider, Some(&Secret::new("t")), &[]);
            assert_eq!(sent, expected.map_or(Headers::new(), |field| of(&[field])));
        }
    }

    #[test]
    fn configured_fields_replace_and_lists_merge() {
        let provider = provider(
            ProviderKind::Anthropic,
            AuthType::None,
            &[("anthropic-beta", "oauth-2025-04-20, b"), ("User-Agent", "mine")],
        );
        let client = of(&[("Anthropic-Beta", "a,b"), ("user-agent", "theirs")]);
        let sent = to_upstream(&client, &provider, None, &[]);
        assert_eq!(sent, of(&[("anthropic-beta", "a,b,oauth-2025-04-20"), ("User-Agent", "mine")]));
        let sent = to_upstream(&Headers::new(), &provider, None, &[]);
        assert_eq!(sent.first("anthropic-beta"), Some(b"oauth-2025-04-20,b".as_slice()));
    }

    #[test]
    fn passthrough_never_passes_our_own_key() {
        let provider = ProviderConfig {
            credential: Credential::Passthrough,
            ..provider(ProviderKind::OpenAi, AuthType::AuthToken, &[])
        };
        let client = of(&[("Authorization", "Bearer theirs"), ("x-api-key", "inbound")]);
        let sent = to_upstream(&client, &provider, None, &[Secret::new("inbound")]);
        assert_eq!(sent, of(&[("Authorization", "Bearer theirs")]));
    }

    #[test]
    fn every_credential_of_the_client_stays_behind() {
        let client = of(&[
            ("X-Goog-Api-Key", "none"),
            ("api-key", "azure"),
            ("x-api-key", "a"),
            ("Authorization", "Bearer b"),
            ("X-Kept", "1"),
        ]);
        let generic = provider(ProviderKind::Generic, AuthType::AuthToken, &[]);
        let sent = to_upstream(&client, &generic, Some(&Secret::new("t")), &[]);
        assert_eq!(sent, of(&[("X-Kept", "1"), ("authorization", "Bearer t")]));
        let none = provider(ProviderKind::Generic, AuthType::None, &[]);
        assert_eq!(to_upstream(&client, &none, None, &[]), of(&[("X-Kept", "1")]));
        let passthrough = ProviderConfig { credential: Credential::Passthrough, ..generic };
        assert_eq!(to_upstream(&client, &passthrough, None, &[]), client);
    }

    #[test]
    fn an_inbound_key_goes_upstream_in_no_field() {
        let client = of(&[
            ("x-goog-api-key", "inbound"),
            ("Authorization", "Basic dTppbmJvdW5k"), // u:inbound
            ("X-Any", "Bearer inbound"),
            ("Cookie", "a=1; k=inbound"),
            ("Cookie", "k=inbound"),
            ("Cookie", "b=2"),
            ("inbound", "as a name"),
            ("X-Kept", "inbounds"),
        ]);
        for credential in [Credential::Passthrough, Credential::None] {
            let provider = ProviderConfig {
                credential,
                ..provider(ProviderKind::OpenAi, AuthType::AuthToken, &[])
            };
            let sent = to_upstream(&client, &provider, None, &[Secret::new("inbound")]);
            assert_eq!(sent, of(&[("Cookie", "b=2"), ("X-Kept", "inbounds"), ("Cookie", "a=1")]));
        }
    }

    #[test]
    fn where_the_credential_goes_and_what_stands_before_it() {
        let cases = [
            (Some("x-goog-api-key"), None, ("x-goog-api-key", "t")),
            (Some("Api-Key"), Some("k="), ("Api-Key", "k=t")),
            (Some("Authorization"), None, ("Authorization", "Bearer t")),
            (Some("authorization"), Some(""), ("authorization", "t")),
            (None, Some("token "), ("authorization", "token t")),
        ];
        for (header, prefix, expected) in cases {
            let provider = ProviderConfig {
                auth_header: header.map(Into::into),
                auth_prefix: prefix.map(Into::into),
                ..provider(ProviderKind::OpenAi, AuthType::ApiKey, &[])
            };
            let client = of(&[("api-key", "theirs")]);
            let sent = to_upstream(&client, &provider, Some(&Secret::new("t")), &[]);
            assert_eq!(sent, of(&[expected]), "{header:?} {prefix:?}");
        }
    }

    #[test]
    fn fields_are_taken_out_and_claims_put_in() {
        let template = |text| {
            let template = crate::config::request_fields::Template::parse(text).unwrap().unwrap();
            FieldValue::Claims(template)
        };
        let headers = vec![
            ("User-Agent".into(), FieldValue::Removed),
            ("X-Account".into(), template("{token.claims.a}")),
            ("X-Missing".into(), template("{token.claims.b}")),
            ("Anthropic-Beta".into(), template("{token.claims.c}")),
        ];
        let provider =
            ProviderConfig { headers, ..provider(ProviderKind::OpenAi, AuthType::AuthToken, &[]) };
        let client = of(&[
            ("user-agent", "x"),
            ("x-account", "theirs"),
            ("x-missing", "theirs"),
            ("anthropic-beta", "one"),
            ("accept", "a"),
        ]);
        let claims = [None, Some("acc".to_owned()), None, Some("two".to_owned())];
        let sent =
            super::to_upstream(&client, &provider, Some(&Secret::new("t")), Some(&claims), &[]);
        let passed_on: Vec<_> = sent.passed_on.iter().collect();
        assert_eq!(passed_on, [(b"accept".as_slice(), b"a".as_slice())]);
        let own =
            [("X-Account", "acc"), ("Anthropic-Beta", "one,two"), ("authorization", "Bearer t")];
        assert_eq!(sent.own, of(&own));
    }

    #[test]
    fn responses_lose_hop_by_hop_fields_only() {
        let mut upstream = of(&[
            ("content-length", "3"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("location", "/x"),
        ]);
        let expected = of(&[
            ("content-length", "3"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("location", "/x"),
        ]);
        to_client(&mut upstream);
        assert_eq!(upstream, expected);
    }
}
