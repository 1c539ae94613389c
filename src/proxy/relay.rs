//! Copies a body from any `Read` to a reply, each piece as it comes.

use std::io::{self, Read};

use crate::proxy::reply::Reply;

/// The most bytes that are passed on at once.
pub const PIECE_MAX_BYTES: usize = 16 * 1024;

/// How a copy ended.
#[derive(Debug)]
pub enum Relayed {
    /// The body is complete.
    Complete,
    /// The upstream broke off.
    UpstreamBroke(io::Error),
    /// The client did not take it.
    ClientBroke(io::Error),
}

/// Copies `from` to `to` until its end. What was read is written before the next read, so that no
/// event waits for the next.
pub fn relay(from: &mut dyn Read, to: &mut Reply<'_>) -> Relayed {
    let mut buffer = vec![0; PIECE_MAX_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Relayed::Complete,
            Ok(count) => {
                if let Err(error) = to.piece(&buffer[..count]) {
                    return Relayed::ClientBroke(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Relayed::UpstreamBroke(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::message::{Headers, ResponseHead};
    use crate::upstream::AnswerLength;

    /// Yields its pieces one by one, then ends or fails.
    struct Script(Vec<io::Result<&'static [u8]>>);

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0)?;
            buffer[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    /// Records each write; fails once there were `allowed`.
    struct Writes(Vec<Vec<u8>>, usize);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() == self.1 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run(script: Vec<io::Result<&'static [u8]>>, allowed: usize) -> (Relayed, Vec<Vec<u8>>) {
        let mut writes = Writes(Vec::new(), allowed);
        let mut reply = Reply::new(&mut writes, None, true);
        let head = ResponseHead { status: 200, headers: Headers::new() };
        reply.begin(&head, AnswerLength::Unknown).unwrap();
        let relayed = relay(&mut Script(script), &mut reply);
        (relayed, writes.0.split_off(1))
    }

    #[test]
    fn each_piece_is_one_write() {
        let script = vec![Ok(b"a".as_slice()), Err(io::ErrorKind::Interrupted.into()), Ok(b"bc")];
        let (relayed, writes) = run(script, 9);
        assert!(matches!(relayed, Relayed::Complete));
        assert_eq!(writes, [b"1\r\na\r\n".to_vec(), b"2\r\nbc\r\n".to_vec()]);
    }

    #[test]
    fn who_broke_is_told_apart() {
        let (relayed, writes) = run(vec![Ok(b"a"), Err(io::ErrorKind::Other.into())], 9);
        assert!(matches!(relayed, Relayed::UpstreamBroke(_)));
        assert_eq!(writes.len(), 1);
        let (relayed, _) = run(vec![Ok(b"a"), Ok(b"b")], 2);
        assert!(matches!(relayed, Relayed::ClientBroke(_)));
    }
}
