//! The same as events of `tracing`.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tower_api_key::{ApiKeyBackend, KeyId, KeyUpdate, NewApiKey, Scopes};
use tracing_subscriber::fmt::MakeWriter;

use super::heard;
use crate::support::{Fixture, USER, id_of, unknown_token, with_wrong_secret};

#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// What was logged since it was asked the last time.
    pub(super) fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

pub(super) fn log() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(lines.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    (lines, guard)
}

#[tokio::test]
async fn what_happens_is_logged_under_the_same_names_whether_anybody_reads_or_not() {
    for reads in [false, true] {
        let (log, _guard) = log();
        let fixture = Fixture::new().await;
        let store = &fixture.store;
        let mut events = reads.then(|| store.events());
        let token = fixture.token(&[]).await;
        let id = id_of(&token);
        store
            .update(&id, KeyUpdate::new().name("CI"))
            .await
            .unwrap();
        store.disable(&id).await.unwrap();
        store.verify(&token).await.unwrap_err();
        store.enable(&id).await.unwrap();
        store.report_leaked([&token]).await.unwrap();
        store.verify(with_wrong_secret(&token)).await.unwrap_err();
        store.delete(&id).await.unwrap();
        let lines = log.take();
        let told = events.as_mut().map(heard);
        let expected = [
            ("INFO", "key.created"),
            ("INFO", "key.updated"),
            ("INFO", "key.disabled"),
            ("DEBUG", "key.rejected"),
            ("INFO", "key.enabled"),
            ("WARN", "key.leak_reported"),
            ("INFO", "key.revoked"),
            ("DEBUG", "key.rejected"),
            ("INFO", "key.deleted"),
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, (level, name)) in lines.iter().zip(expected) {
            let starts = line.trim_start().starts_with(level);
            assert!(starts && line.contains(" tower_api_key: "), "{line}");
            assert!(line.contains(&format!(" event=\"{name}\" ")), "{line}");
            assert!(line.contains(&format!(" key_id={id}")), "{line}");
        }
        assert!(lines[0].contains(&format!(" user_id=\"{USER}\"")));
        assert!(lines[3].contains(" reason=\"disabled\""));
        assert!(lines[7].contains(" reason=\"wrong_secret\""));
        if let Some(told) = told {
            let names = expected.map(|(_, name)| name);
            assert_eq!(super::names(&told), names);
        }
    }
}

#[tokio::test]
async fn an_outage_is_a_warning_with_its_cause() {
    let (log, _guard) = log();
    let fixture = Fixture::new().await;
    fixture.set_broken(true);
    fixture.store.verify(unknown_token()).await.unwrap_err();
    let lines = log.take();
    let line = lines.last().unwrap();
    assert!(line.contains("WARN") && line.contains("event=\"key.rejected\""));
    assert!(line.contains("reason=\"unavailable\"") && line.contains("the cable was pulled"));
}

#[tokio::test]
async fn a_record_that_came_by_another_way_forges_no_line_of_the_log_or_of_an_event() {
    let (log, _guard) = log();
    let fixture = Fixture::new().await;
    let mut events = fixture.store.events();
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = fixture.store.create(new).await.unwrap();
    let mut key = issued.key().clone();
    key.user_id = "user\n INFO tower_api_key: forged\u{2028}\u{1b}[31m".to_owned();
    key.id = KeyId::from_bytes([7; KeyId::LEN]);
    assert!(fixture.backend.insert(&key).await.unwrap());
    assert!(fixture.store.revoke(&key.id).await.unwrap());
    let lines = log.take();
    let told = heard(&mut events);
    assert_eq!((lines.len(), told.len()), (2, 2), "{lines:#?}");
    for shown in [&lines[1], &told[1].to_string(), &format!("{:?}", told[1])] {
        let splits = |char: char| char.is_control() || char == '\u{2028}';
        assert!(
            shown.contains("forged") && !shown.contains(splits),
            "{shown}"
        );
    }
}
