//! Counts the requests of an HTTP/2 client from the bytes that it sends.

/// The bytes that a client sends before its first frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;

/// Counts the requests in the bytes of one connection.
///
/// Each request begins with a HEADERS frame, and gRPC clients send no other HEADERS frames.
#[derive(Debug)]
pub struct RequestCount {
    /// The number of bytes before the next frame header.
    skip: usize,
    /// The frame header as far as it has arrived. It has nine bytes: the first three are the length
    /// of the payload, and the fourth is the type.
    head: Vec<u8>,
}

impl RequestCount {
    /// Creates a counter for a connection on which the client has sent nothing yet.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a counter belongs to the start of one connection, so a default would mislead"
    )]
    pub const fn new() -> Self {
        Self { skip: PREFACE.len(), head: Vec::new() }
    }

    /// Takes the next bytes, and returns how many requests begin in them.
    pub fn requests(&mut self, bytes: &[u8]) -> u32 {
        let mut requests = 0;
        for byte in bytes {
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.head.push(*byte);
            if let [high, middle, low, kind, _, _, _, _, _] = self.head[..] {
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                requests += u32::from(kind == HEADERS);
                self.head.clear();
            }
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn frames_of_headers_are_counted_wherever_the_bytes_are_cut() {
        const DATA: u8 = 0;
        const SETTINGS: u8 = 4;
        // The length needs more than one byte, and the payload looks like HEADERS frames.
        let data = frame(HEADERS, b"not a frame").repeat(40);
        let sent = [
            PREFACE.to_vec(),
            frame(SETTINGS, &[]),
            frame(HEADERS, b"one"),
            frame(DATA, &data),
            frame(HEADERS, b"two"),
        ]
        .concat();
        for size in [1, 7, sent.len()] {
            let mut count = RequestCount::new();
            let requests: u32 = sent.chunks(size).map(|bytes| count.requests(bytes)).sum();
            assert_eq!(requests, 2, "in pieces of {size}");
        }
    }
}
