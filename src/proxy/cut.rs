//! The reason why an answer was cut after its beginning, for the log line and the metrics. Pure.

use std::io;

/// A provider's fault in the middle of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It ended the connection, or sent something that is not HTTP.
    BrokeOff,
    /// It sent nothing for longer than allowed.
    Silent,
}

impl Cut {
    /// The fault behind the error that ended reading the answer.
    pub(super) fn of(error: &io::Error) -> Self {
        // The system reports a peer that no longer acknowledges data in the same way, with its own error number.
        let is_our_limit =
            error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none();
        if is_our_limit { Self::Silent } else { Self::BrokeOff }
    }

    /// The words for the log line.
    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::BrokeOff => "the provider broke off",
            Self::Silent => "the provider was silent for longer than timeouts.idle allows",
        }
    }

    /// The kind of the upstream error, for the metrics.
    pub(super) const fn as_kind(self) -> &'static str {
        match self {
            Self::BrokeOff => "cut",
            Self::Silent => "silent",
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn our_own_limit_is_told_from_a_connection_that_died() {
        let cases = [
            (io::ErrorKind::TimedOut.into(), Cut::Silent),
            (Errno::TIMEDOUT.into(), Cut::BrokeOff),
            (Errno::CONNRESET.into(), Cut::BrokeOff),
            (io::ErrorKind::UnexpectedEof.into(), Cut::BrokeOff),
            (io::Error::other("a chunk size that is not a number"), Cut::BrokeOff),
        ];
        for (error, expected) in cases {
            assert_eq!(Cut::of(&error), expected, "{error:?}");
        }
    }
}
