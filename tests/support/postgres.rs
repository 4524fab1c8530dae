//! A PostgreSQL server of one test's own: made from the installed programs, and gone afterwards.
//!
//! The programs are looked for in `PATH` and in `/usr/lib/postgresql`. Where there are none, tests
//! fail, unless `TOWER_API_KEY_SKIP_POSTGRES=1` says that they may be skipped.

#[path = "installed.rs"]
pub mod installed;

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use self::installed::{
    User, base, programs, spawn, succeeds, sweep, template, unique, unprivileged, user_command,
};
use tower_api_key::sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions, raw_sql,
};

/// A running server on the loopback. It ends when this is dropped, or when the test's process does.
pub struct Server {
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
    user: Option<User>,
    programs: PathBuf,
    running: Mutex<Option<Postmaster>>,
}

struct Postmaster {
    pid: u32,
    /// Says nothing, and closes when the process has ended.
    end: Receiver<()>,
}

/// Quick rather than safe: nothing outlives the test. What was committed survives a crash of the
/// server, if not one of the machine.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_wal_size=64MB",
    "timezone=UTC",
    "log_min_messages=log",
];

/// After how long a server that doesn't start or end is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(3);
/// How many ports are tried: another process may take one before the server does.
const MAX_PORTS: u32 = 5;

impl Server {
    /// A new, empty server. `None` where PostgreSQL isn't installed and tests may be skipped, which
    /// is printed.
    ///
    /// It blocks: call it before there is something else to do on the thread.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with further settings, `name=value`.
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            let may_skip = env::var("TOWER_API_KEY_SKIP_POSTGRES").is_ok_and(|value| value == "1");
            assert!(
                may_skip,
                "PostgreSQL isn't installed: `apt-get install postgresql`, or put `postgres` and \
                 `initdb` into PATH (TOWER_API_KEY_SKIP_POSTGRES=1 skips the tests that need it)"
            );
            eprintln!("SKIPPED: PostgreSQL isn't installed");
            return None;
        };
        let user = unprivileged();
        let base = base(user);
        sweep(&base);
        let template = template(&base, &programs, user);
        let folder = base.join(unique("server"));
        let mut copy = user_command("cp", user, None);
        copy.args(["-r", "--"]).arg(template).arg(&folder);
        succeeds(&mut copy);
        let mut server = Self {
            folder,
            port: 0,
            settings: settings.iter().map(|&text| text.to_owned()).collect(),
            user,
            programs,
            running: Mutex::default(),
        };
        for _ in 0..MAX_PORTS {
            server.port = free_port();
            if server.launch() {
                return Some(server);
            }
        }
        panic!("the server doesn't start:\n{}", server.log());
    }

    /// For `PostgresBackend::connect`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.running().as_ref().expect("the server runs").pid
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.folder
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A few connections that are made when they are needed.
    pub fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(8);
        options.connect_lazy(&self.url()).unwrap()
    }

    /// A connection of one's own, as `psql` has it.
    pub async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    /// Runs statements as an operator would, on a connection of their own.
    pub async fn psql(&self, statements: &str) {
        let mut connection = self.connection().await;
        let run = raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection);
        run.await.unwrap();
        connection.close().await.unwrap();
    }

    /// Ends the server as `pg_ctl stop` does: connections are closed, and everything is written.
    pub fn stop(&self) {
        self.end("INT");
    }

    /// Ends it without writing anything, as a crash does: the next start recovers.
    pub fn stop_at_once(&self) {
        self.end("QUIT");
    }

    /// Starts it after a stop, on the same port.
    pub fn start_again(&self) {
        // The port may be held for a moment by connections that are about to close.
        let since = Instant::now();
        while !self.launch() {
            assert!(since.elapsed() < PATIENCE, "no new start:\n{}", self.log());
        }
    }

    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// The whole server stands still, as on a machine that is suspended: it answers nothing, and
    /// connections stay open.
    pub fn pause(&self) {
        let pid = self.pid();
        // The one that makes processes first, then all that it has made.
        signal("STOP", &[pid]);
        signal("STOP", &children(pid));
    }

    pub fn resume(&self) {
        let pid = self.pid();
        signal("CONT", &children(pid));
        signal("CONT", &[pid]);
    }

    /// Whether it is running afterwards.
    fn launch(&self) -> bool {
        // A crash leaves it behind, and it would look ready.
        let _ = fs::remove_file(self.folder.join("postmaster.pid"));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let program = self.programs.join("postgres");
        let mut command = user_command(program.to_str().unwrap(), self.user, Some("QUIT"));
        command.arg("-D").arg(&self.folder);
        command.arg("-p").arg(self.port.to_string());
        let given = self.settings.iter().map(String::as_str);
        for setting in SETTINGS.iter().copied().chain(given) {
            command.args(["-c", setting]);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let (pid, end) = spawn(command);
        let since = Instant::now();
        loop {
            if end.recv_timeout(BETWEEN_LOOKS) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
            let state = fs::read_to_string(self.folder.join("postmaster.pid")).unwrap_or_default();
            if state
                .lines()
                .nth(7)
                .is_some_and(|line| ["ready", "standby"].contains(&line.trim()))
            {
                *self.running() = Some(Postmaster { pid, end });
                return true;
            }
            assert!(since.elapsed() < PATIENCE, "it hangs:\n{}", self.log());
        }
    }

    fn end(&self, how: &str) {
        let Some(Postmaster { pid, end }) = self.running().take() else {
            return;
        };
        let all = [vec![pid], children(pid)].concat();
        signal(how, &[pid]);
        // One that was paused hears it now.
        signal("CONT", &all);
        if end.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Disconnected) {
            signal("KILL", &[vec![pid], children(pid)].concat());
            assert!(thread::panicking(), "it doesn't end:\n{}", self.log());
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("test.log")
    }

    fn running(&self) -> MutexGuard<'_, Option<Postmaster>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("QUIT");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The URL of a server on the loopback, or of what stands before it.
pub fn url(port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/postgres")
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Sends it to those of the processes that are still there.
pub fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
    let kill = format!("kill -{name} {}", pids.join(" "));
    let mut command = Command::new("sh");
    let output = command.args(["-c", &kill]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let is_gone = |line: &str| line.is_empty() || line.contains("No such process");
    assert!(said.lines().all(is_gone), "{kill}: {said}");
}

/// The processes that it has made and that are there.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let parsed = list.split_whitespace().map(|pid| pid.parse().unwrap());
    parsed.collect()
}
