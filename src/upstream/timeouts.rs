//! The time limits of an exchange's phases.

use std::time::Duration;

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
