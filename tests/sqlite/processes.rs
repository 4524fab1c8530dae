//! Several processes on one file, one of which is killed.

use std::{
    collections::BTreeMap,
    env,
    io::{self, BufRead as _, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use tower_api_key::{
    ApiKeyStore, CacheConfig, NewApiKey, PageRequest, Pepper, Peppers, Scopes, SqliteBackend, sqlx,
};

use crate::{
    shell, store,
    support::{PEPPER, USER, folder::Folder, outcome},
};

/// The file that a second process works on.
const FILE: &str = "TOWER_API_KEY_TEST_FILE";

/// What begins the lines of a second process, among those of the test harness.
const ANSWER: &str = "answer: ";

/// A second process, which runs the test that is named after it.
pub(super) struct Second {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Second {
    /// One that revokes each token that it is asked with.
    pub(super) fn that_revokes(file: &Path) -> Self {
        Self::start("revokes_what_it_is_told_to", file)
    }

    fn start(test: &str, file: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                &format!("sqlite::processes::{test}"),
                "--nocapture",
            ])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub(super) fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        self.answer().expect("it has ended")
    }

    /// The next whole answer; none after the end.
    fn answer(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).unwrap();
            let line = line.strip_suffix('\n')?;
            // The harness doesn't end its own line before the first of them.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return Some(answer.to_owned());
            }
        }
    }

    /// SIGKILL: nothing more runs in it.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{ANSWER}{text}")
}

async fn open(file: &Path) -> ApiKeyStore {
    store(SqliteBackend::open(file).await.unwrap()).await
}

async fn create(store: &ApiKeyStore) -> String {
    let new = NewApiKey::for_user(USER, Scopes::none());
    let issued = store.create(new).await.unwrap();
    issued.token().expose().to_owned()
}

/// Creates keys, revokes every second one of them, and tells of each when it was answered.
async fn create_and_revoke(
    store: &ApiKeyStore,
    mut tell: impl FnMut(&str) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let [kept, revoked] = [create(store).await, create(store).await];
        tell(&format!("created {kept}"))?;
        tell(&format!("created {revoked}"))?;
        // From here on until it is answered, it may be revoked or not.
        tell(&format!("revoking {revoked}"))?;
        assert!(store.revoke_token(&revoked).await.unwrap());
        tell(&format!("revoked {revoked}"))?;
    }
}

/// Alone, it works for a while on a file of its own. As a second process it goes on until it is killed.
#[tokio::test]
async fn what_was_answered_can_be_read_by_the_next() {
    if let Some(file) = env::var_os(FILE) {
        let store = open(file.as_ref()).await;
        let end = create_and_revoke(&store, answer).await;
        end.unwrap_err();
        return;
    }
    let folder = Folder::new("sqlite-answers");
    let path = folder.join("keys.db");
    let mut answers = Vec::new();
    let tell = |answer: &str| {
        answers.push(answer.to_owned());
        if answers.len() < 40 {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    create_and_revoke(&open(&path).await, tell)
        .await
        .unwrap_err();
    assert_eq!(check(&path, &answers).await, 20);
}

/// Reads all that is there, and finds what was answered in it. Gives the number of keys.
async fn check(path: &Path, answers: &[String]) -> usize {
    let mut expected = BTreeMap::new();
    for answer in answers {
        match answer.split_once(' ').unwrap() {
            ("created", token) => expected.insert(token, ["good", "good"]),
            ("revoking", token) => expected.insert(token, ["good", "revoked"]),
            ("revoked", token) => expected.insert(token, ["revoked", "revoked"]),
            _ => panic!("{answer}"),
        };
    }
    let store = open(path).await;
    for (token, expected) in &expected {
        let found = outcome(&store.verify(token).await);
        assert!(expected.contains(&found), "{found} instead of {expected:?}");
    }
    let mut count = 0;
    let mut page = PageRequest::new().limit(PageRequest::MAX_LIMIT);
    loop {
        let found = store.list_for_user(USER, page).await.unwrap();
        count += found.keys.len();
        let Some(next) = found.next else { break };
        page = page.after(next);
    }
    let mut shell = shell(path).await;
    let integrity: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut shell)
        .await
        .unwrap();
    assert_eq!(integrity, "ok");
    count
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_and_nothing_is_by_half() {
    let folder = Folder::new("sqlite-killed");
    let path = folder.join("keys.db");
    let mut answers = Vec::new();
    // Killed at different moments, on the same file, in 1,500 operations in all.
    let mut kills = 0;
    while answers.len() < 2_000 {
        let mut second = Second::start("what_was_answered_can_be_read_by_the_next", &path);
        for _ in 0..170 + kills % 7 {
            answers.push(second.answer().expect("it has ended"));
        }
        second.kill();
        // What it said before the kill counts, too.
        answers.extend(std::iter::from_fn(|| second.answer()));
        let count = check(&path, &answers).await;
        let answered = answers
            .iter()
            .filter(|answer| answer.starts_with("created"))
            .count();
        kills += 1;
        // Of what wasn't answered, two creations at the most can be there after each kill.
        assert!(
            (answered..=answered + 2 * kills).contains(&count),
            "{count} of {answered}"
        );
    }
    assert!(kills >= 10, "{kills}");
}

/// Revokes the tokens that come in, one a line.
#[tokio::test]
async fn revokes_what_it_is_told_to() {
    if let Some(file) = env::var_os(FILE) {
        let store = open(file.as_ref()).await;
        for line in io::stdin().lines() {
            let revoked = store.revoke_token(line.unwrap()).await.unwrap();
            answer(if revoked { "revoked" } else { "nothing" }).unwrap();
        }
        return;
    }
    let folder = Folder::new("sqlite-revokes");
    let path = folder.join("keys.db");
    let store = open(&path).await;
    let token = create(&store).await;
    let mut second = Second::that_revokes(&path);
    assert_eq!(second.ask(&token), "revoked");
    assert_eq!(second.ask(&token), "nothing");
    assert_eq!(outcome(&store.verify_fresh(&token).await), "revoked");
}

#[tokio::test]
async fn g2_a_key_revoked_by_another_process_is_refused_within_a_poll() {
    let folder = Folder::new("sqlite-processes");
    let path = folder.join("keys.db");
    // So late that nothing but the poll can have told.
    let cache = CacheConfig::new().max_staleness(Duration::from_secs(60));
    let store = ApiKeyStore::builder(SqliteBackend::open(&path).await.unwrap())
        .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
        .cache(cache)
        .build()
        .await
        .unwrap();
    let mut second = Second::that_revokes(&path);
    let mut took = Vec::new();
    for _ in 0..20 {
        let token = create(&store).await;
        let mut hits = store.cache_stats().hits;
        // In the cache, where it stays as long as nothing is told.
        while store.cache_stats().hits < hits + 3 {
            let before = store.cache_stats().hits;
            assert_eq!(outcome(&store.verify(&token).await), "good");
            if store.cache_stats().hits == before {
                hits = before;
            }
        }
        assert_eq!(second.ask(&token), "revoked");
        let start = Instant::now();
        loop {
            match outcome(&store.verify(&token).await) {
                "revoked" => break,
                "good" => assert!(start.elapsed() < Duration::from_secs(3)),
                other => panic!("{other}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(start.elapsed());
    }
    took.sort();
    eprintln!(
        "refused after {:?} in the middle, {:?} at the latest",
        took[10], took[19]
    );
}
