//! Whether a text is JSON, by the grammar alone: so it is asked in the same way with serde and without.

/// Whether `text` is one JSON value (RFC 8259) that `serde_json` would read, too.
pub(super) fn is_json(text: &str) -> bool {
    let mut rest = Rest(text.as_bytes());
    rest.value(MAX_DEPTH).is_some() && rest.is_at_the_end()
}

/// How deep values may be nested. Whatever nests deeper could end the process of who reads it.
const MAX_DEPTH: usize = 127;

/// What is still to be looked at. Where a method answers nothing, it isn't JSON.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn value(&mut self, depth: usize) -> Option<()> {
        self.skip_space();
        match self.0.first()? {
            b'{' => self.list(b'}', Self::member, depth),
            b'[' => self.list(b']', Self::value, depth),
            b'"' => self.string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    /// What stands between brackets: items, with commas between them.
    fn list(
        &mut self,
        end: u8,
        item: fn(&mut Self, usize) -> Option<()>,
        depth: usize,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        self.next()?;
        self.skip_space();
        if self.takes(end) {
            return Some(());
        }
        loop {
            item(self, depth)?;
            self.skip_space();
            if self.takes(end) {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    fn member(&mut self, depth: usize) -> Option<()> {
        self.skip_space();
        self.string()?;
        self.skip_space();
        self.take(b':')?;
        self.value(depth)
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                // Of the control characters, only these have to be escaped.
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex()? {
                // Two of these are a character, and one is none.
                0xd800..0xdc00 => {
                    self.word(b"\\u")?;
                    matches!(self.hex()?, 0xdc00..0xe000).then_some(())
                }
                0xdc00..0xe000 => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |number, _| {
            let digit = char::from(self.next()?).to_digit(16)?;
            Some(number << 4 | digit)
        })
    }

    fn number(&mut self) -> Option<()> {
        let whole = self.0;
        self.takes(b'-');
        if !self.takes(b'0') {
            self.digits()?;
        }
        if self.takes(b'.') {
            self.digits()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _ = self.takes(b'-') || self.takes(b'+');
            self.digits()?;
        }
        let (number, _) = whole.split_at(whole.len() - self.0.len());
        let number: f64 = str::from_utf8(number).ok()?.parse().ok()?;
        number.is_finite().then_some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit());
        let count = count.count();
        self.0 = &self.0[count..];
        (count > 0).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.word(&[byte])
    }

    fn takes(&mut self, byte: u8) -> bool {
        self.take(byte).is_some()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    fn is_at_the_end(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }
}
