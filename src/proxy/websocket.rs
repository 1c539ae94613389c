//! Requests for a WebSocket: whether one may be opened, and the providers that may answer.

use std::sync::Arc;

use crate::clock::Stopwatch;
use crate::http::refusal::{Code, Refusal};
use crate::http::websocket;
use crate::ingress::Request;
use crate::proxy::api::api_of;
use crate::proxy::body::TakenBody;
use crate::proxy::choice::{Candidate, Queue};
use crate::proxy::failover::{forward, sharing};
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::provider::{Provider, share_of_websockets};
use crate::proxy::reply::Reply;
use crate::proxy::rights::Rights;
use crate::proxy::route;
use crate::proxy::state::Proxy;

/// Forwards the handshake of a WebSocket like any request without a body; after a 101, the connection is a tunnel.
/// `place` is the provider that the path names, and the target there.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn open_websocket<'p>(
    proxy: &'p Proxy,
    request: &mut Request<'_>,
    rights: Rights<'p>,
    place: Option<(&'p Arc<Provider>, &str)>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'p>,
    stopwatch: Stopwatch,
) -> Result<(), Stop> {
    let head = request.head;
    websocket::check(head)?;
    let mut candidates = if let Some((provider, _)) = place {
        vec![Candidate::alone(provider)]
    } else {
        let api = || api_of(head.path(), &head.headers);
        let found = route::candidates(proxy.table_for(rights), api, None);
        found.map_err(|refusal| route::with_hint(refusal, head))?
    };
    candidates.retain(|one| one.provider.config.websocket);
    match candidates.as_slice() {
        [] => return Err(off("websocket: false").into()),
        _ if request.switch.is_none() => return Err(off("settings.server: \"tiny_http\"").into()),
        _ => rights.check_websocket()?,
    }
    check_room(proxy)?;
    if let [only] = candidates.as_slice() {
        only.provider.wait_for_credential(&proxy.clock)?;
    }
    let target = place.map_or(head.target.as_str(), |(_, target)| target);
    let body = TakenBody::Absent;
    let sharing = sharing(proxy, head, &body, &candidates);
    let candidates = Queue::new(candidates, sharing);
    forward(proxy, request, target, body, candidates, reply, record, stopwatch)
}

/// Refuses a WebSocket if those of all providers leave too few connections to other requests.
fn check_room(proxy: &Proxy) -> Result<(), Refusal> {
    let most = share_of_websockets(proxy.settings.limits.max_connections as u64);
    let entered: u64 = proxy.providers.iter().map(|one| one.counts.tunnels.entered()).sum();
    if entered < most {
        return Ok(());
    }
    let message = format!(
        "There are {entered} WebSockets, which leave a quarter of settings.max_connections to other requests"
    );
    Err(Refusal::new(Code::Overloaded, message))
}

fn off(setting: &str) -> Refusal {
    let message = format!(
        "No WebSocket is taken here, because of {setting} in the configuration; plain HTTP requests are"
    );
    Refusal::new(Code::WebSocketOff, message)
}
