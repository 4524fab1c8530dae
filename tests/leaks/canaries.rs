//! What must not be found, and where it is looked for.

use std::{
    error::Error,
    fmt::{Debug, Write},
    io,
    sync::{Arc, LazyLock, Mutex},
};

use tower_api_key::{Pepper, Peppers};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

use crate::support::{PEPPER, chain};

/// Everything that was logged by anyone in this process, at every level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn install() -> &'static Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_span_events(FmtSpan::FULL)
                .with_ansi(false)
                .with_writer(log.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            log
        });
        &LOG
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Texts that must not be found anywhere.
pub(crate) struct Canaries(pub(crate) Vec<String>);

impl Canaries {
    /// The pepper, and of each token the secret and its hash.
    pub(crate) fn new(tokens: &[String]) -> Self {
        let peppers = Peppers::new(Pepper::new("v1", PEPPER).unwrap());
        let mut canaries = vec![PEPPER.to_owned(), hex(PEPPER.as_bytes())];
        for token in tokens {
            let secret = token.rsplit('.').next().unwrap();
            let hash = peppers.hash(&token.parse().unwrap()).unwrap();
            canaries.extend([secret.to_owned(), hex(secret.as_bytes()), hash.to_hex()]);
        }
        Self(canaries)
    }

    pub(crate) fn assert_absent(&self, from: &str, text: &str) {
        assert!(!text.is_empty(), "{from} shows nothing");
        let lower = text.to_lowercase();
        for canary in &self.0 {
            let found = text.contains(canary) || lower.contains(&canary.to_lowercase());
            assert!(!found, "{from} shows {canary}:\n{text}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// An error as every kind of log would show it, its causes with it.
pub(crate) fn shown(error: &(dyn Error + 'static)) -> String {
    let texts = chain(error).map(|error| format!("{error}\n{error:?}\n{error:#?}\n"));
    texts.collect()
}

pub(crate) fn debug(value: &dyn Debug) -> String {
    format!("{value:?}\n{value:#?}")
}
