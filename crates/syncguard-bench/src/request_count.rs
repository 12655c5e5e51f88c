//! How many requests an HTTP/2 client sends, by what goes over its connection.

/// What a client sends before its first frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;

/// Counts the requests in the bytes of one connection.
///
/// Each begins with a frame of headers, and gRPC clients send no other such frames.
#[derive(Debug)]
pub struct RequestCount {
    /// How many bytes there are until the next frame.
    skip: usize,
    /// What there is of the head of a frame: nine bytes, of which three are the length of the rest,
    /// and the fourth is its type.
    head: Vec<u8>,
}

impl RequestCount {
    /// For a connection on which nothing was sent yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a beginning, not a value of its own")]
    pub const fn new() -> Self {
        Self { skip: PREFACE.len(), head: Vec::new() }
    }

    /// How many requests begin in the next bytes.
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
        // Longer than one byte of the length can tell, and it looks like headers itself.
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
