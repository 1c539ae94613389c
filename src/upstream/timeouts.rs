//! The time limits of an exchange's phases.

use std::time::Duration;

/// The time that every handshake of a WebSocket may take.
const HANDSHAKE_MIN: Duration = Duration::from_secs(8);

/// The time limits of an exchange's phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the name, and again for TCP and TLS.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub response: Duration,
    /// Longest silence within a response, or without progress in sending the request.
    pub idle: Duration,
}

impl Timeouts {
    /// The same with a head that comes within `response_max`.
    pub(super) fn within(self, response_max: Option<Duration>) -> Self {
        let response = response_max.map_or(self.response, |max| max.min(self.response));
        Self { response, ..self }
    }

    /// Those of a WebSocket's handshake. Its answer needs no work of a model, and clients wait for it about as long as for
    /// a connection: a little less is left for it here, so that another provider can still take it.
    pub(super) fn of_handshake(self) -> Self {
        let response = self.connect * 4 / 5;
        Self { response: response.max(HANDSHAKE_MIN).min(self.response), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_has_less_time_than_its_client_waits() {
        let of = |connect, response| {
            let [connect, response] = [connect, response].map(Duration::from_secs);
            Timeouts { connect, response, idle: response }.of_handshake().response.as_secs()
        };
        assert_eq!(of(10, 600), 8);
        assert_eq!((of(1, 600), of(60, 600)), (8, 48), "never less, and more on slow networks");
        assert_eq!((of(10, 7), of(60, 30)), (7, 30), "never more than other requests");
    }

    #[test]
    fn a_request_may_have_less_time_than_others_and_never_more() {
        let second = Duration::from_secs(1);
        let usual = Timeouts { connect: second, response: 5 * second, idle: 9 * second };
        for (max, response) in [(None, 5), (Some(4), 4), (Some(5), 5), (Some(6), 5)] {
            let within = usual.within(max.map(Duration::from_secs));
            assert_eq!(within, Timeouts { response: Duration::from_secs(response), ..usual });
        }
    }
}
