//! A process that claims with many tasks at once, from both sides.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use tokio::{sync::Barrier, task::JoinSet};
use tower_api_key::{
    ApiKeyStore, HandoffToken, Pepper, Peppers, PostgresBackend, SqliteBackend, StoreError,
};

/// The variable that says where the keys are.
pub(crate) const PLACE: &str = "TOWER_API_KEY_TEST_CLAIMS";
const PEPPER: &[u8] = &[7; 32];

/// The test that a process runs.
const TEST: &str = "a_process_that_claims";

/// Begins the lines of a process, among those of the test harness.
const SAYS: &str = "claimer: ";

/// Where the keys are.
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

/// Two on the same connections: each lets four claim at once, and there are eight.
pub(crate) async fn stores(place: &Place) -> [ApiKeyStore; 2] {
    let builders = match place {
        Place::Sqlite(path) => {
            let backend = SqliteBackend::open(path).await.unwrap();
            [backend.clone(), backend].map(ApiKeyStore::builder)
        }
        Place::Postgres(url) => {
            let backend = PostgresBackend::connect(url).await.unwrap();
            [backend.clone(), backend].map(ApiKeyStore::builder)
        }
    };
    let peppers = || Peppers::new(Pepper::new("v1", PEPPER).unwrap());
    let [one, other] = builders.map(|builder| builder.peppers(peppers()).build());
    [one.await.unwrap(), other.await.unwrap()]
}

/// Such a process as the test sees it.
pub(crate) struct Claimers {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Claimers {
    /// It is ready when this returns.
    pub(crate) fn start(place: &Place) -> Self {
        let place = match place {
            Place::Sqlite(path) => format!("sqlite {}", path.display()),
            Place::Postgres(url) => format!("postgres {url}"),
        };
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", TEST, "--ignored", "--nocapture"])
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(process.line().as_deref(), Some("ready"));
        process
    }

    /// Lets it claim.
    pub(crate) fn tell(&mut self, token: &HandoffToken) {
        let token = u128::from_be_bytes(*token.expose());
        writeln!(self.stdin, "{token}").unwrap();
    }

    /// The tokens of the keys that its claims got, when all of them have been answered.
    pub(crate) fn round_of(&mut self, tasks: usize) -> Vec<String> {
        let mut won = Vec::new();
        loop {
            let line = self.line().expect("it has ended");
            match line.split_once(' ').unwrap() {
                ("won", token) => won.push(token.to_owned()),
                ("refused", number) => {
                    assert_eq!(number.parse::<usize>().unwrap() + won.len(), tasks);
                    return won;
                }
                _ => panic!("{line}"),
            }
        }
    }

    /// Ends it by SIGKILL. What it said before counts, too.
    pub(crate) fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let rest = std::iter::from_fn(|| self.line());
        let won = |line: String| Some(line.strip_prefix("won ")?.to_owned());
        rest.filter_map(won).collect()
    }

    /// The next whole line that it says; none after the end.
    fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).unwrap();
            let line = line.strip_suffix('\n')?;
            if let Some((_, said)) = line.split_once(SAYS) {
                return Some(said.to_owned());
            }
        }
    }
}

impl Drop for Claimers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(text: &str) {
    // In one piece, so that a kill leaves a whole line or none.
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(format!("{SAYS}{text}\n").as_bytes())
        .unwrap();
    stdout.flush().unwrap();
}

/// Such a process from within: claims each ticket that comes in with so many tasks at once.
pub(crate) async fn claim_what_it_is_told(place: &str, tasks: usize) {
    let place = match place.split_once(' ').unwrap() {
        ("sqlite", path) => Place::Sqlite(path.into()),
        (_, url) => Place::Postgres(url.to_owned()),
    };
    let stores = stores(&place).await;
    say("ready");
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = io::stdin().lines().map_while(Result::ok);
        lines
            .map(|line| sender.send(line))
            .take_while(Result::is_ok)
            .count()
    });
    while let Some(line) = lines.recv().await {
        let token = line.parse::<u128>().unwrap().to_be_bytes();
        let together = Arc::new(Barrier::new(tasks));
        let mut claims = JoinSet::new();
        for task in 0..tasks {
            let (store, together) = (stores[task % 2].clone(), together.clone());
            claims.spawn(async move {
                together.wait().await;
                match store.claim(&HandoffToken::from_bytes(token)).await {
                    Ok(issued) => {
                        say(&format!("won {}", issued.token().expose()));
                        0
                    }
                    Err(StoreError::NotClaimable(_)) => 1,
                    Err(error) => panic!("{error:?}"),
                }
            });
        }
        let refused: usize = claims.join_all().await.iter().sum();
        say(&format!("refused {refused}"));
    }
}
