//! PostgreSQL's protocol, as far as a proxy has to know it.

/// The server's messages as they pass: a byte for the type, then four for the length, which counts
/// itself.
#[derive(Default)]
pub struct Frames {
    header: Vec<u8>,
    /// How much of the message at hand is still to come.
    rest: usize,
    is_lost: bool,
}

const HEADER: usize = 5;
const NOTIFICATION: u8 = b'A';

impl Frames {
    /// What is to be passed on of these bytes, and how many notifications were lost.
    pub fn pass(&mut self, mut bytes: &[u8], loses_notifications: bool) -> (Vec<u8>, usize) {
        let mut passed = Vec::with_capacity(bytes.len() + HEADER);
        let mut lost = 0;
        while !bytes.is_empty() {
            if self.rest == 0 {
                let missing = (HEADER - self.header.len()).min(bytes.len());
                let (head, tail) = bytes.split_at(missing);
                self.header.extend(head);
                bytes = tail;
                if self.header.len() < HEADER {
                    break;
                }
                let length = u32::from_be_bytes(self.header[1..].try_into().unwrap());
                self.rest = usize::try_from(length).unwrap() - 4;
                self.is_lost = loses_notifications && self.header[0] == NOTIFICATION;
                if self.is_lost {
                    lost += 1;
                } else {
                    passed.extend(&self.header);
                }
                self.header.clear();
            }
            let (body, tail) = bytes.split_at(self.rest.min(bytes.len()));
            self.rest -= body.len();
            bytes = tail;
            if !self.is_lost {
                passed.extend(body);
            }
        }
        (passed, lost)
    }
}

/// Whether a client asks there to be notified.
pub fn listens(bytes: &[u8]) -> bool {
    let word = b"LISTEN ";
    let is_there = |(at, window): (usize, &[u8])| {
        let is_word = window.eq_ignore_ascii_case(word);
        is_word && !(at >= 2 && bytes[at - 2..at].eq_ignore_ascii_case(b"UN"))
    };
    bytes.windows(word.len()).enumerate().any(is_there)
}
