//! A PgBouncer of one test's own, before a server.
//!
//! The program is looked for in `PATH` and in `/usr/sbin`. Where there is none, tests fail, unless
//! `TOWER_API_KEY_SKIP_POSTGRES=1` says that they may be skipped.

use std::{
    env, fs,
    net::TcpStream,
    path::PathBuf,
    process::Stdio,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::postgres::{
    Server, free_port,
    installed::{base, spawn, unique, unprivileged, user_command},
    signal, url,
};

/// A running pooler on the loopback. It ends when this is dropped, or when the test's process does.
pub struct Pooler {
    folder: PathBuf,
    port: u16,
    pid: u32,
    /// Says nothing, and closes when the process has ended.
    end: Receiver<()>,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Pooler {
    /// Starts a pooler before `server`, with settings such as `pool_mode = transaction`.
    ///
    /// `None` where PgBouncer isn't installed and tests may be skipped, which is printed.
    #[must_use]
    pub fn start(server: &Server, settings: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            let may_skip = env::var("TOWER_API_KEY_SKIP_POSTGRES").is_ok_and(|value| value == "1");
            assert!(
                may_skip,
                "PgBouncer isn't installed: `apt-get install pgbouncer` \
                 (TOWER_API_KEY_SKIP_POSTGRES=1 skips the tests that need it)"
            );
            eprintln!("SKIPPED: PgBouncer isn't installed");
            return None;
        };
        let user = unprivileged();
        let folder = base(user).join(unique("pgbouncer"));
        let mut make = user_command("mkdir", user, None);
        assert!(make.arg(&folder).status().unwrap().success());
        let since = Instant::now();
        loop {
            let port = free_port();
            let file = folder.join("pgbouncer.ini");
            fs::write(&file, config(server, port, settings)).unwrap();
            let log = fs::File::create(folder.join("log")).unwrap();
            let mut command = user_command(program.to_str().unwrap(), user, Some("KILL"));
            command.arg(&file).stdin(Stdio::null());
            command.stdout(log.try_clone().unwrap()).stderr(log);
            let (pid, end) = spawn(command);
            let mut pooler = Self {
                folder: folder.clone(),
                port,
                pid,
                end,
            };
            if pooler.is_ready() {
                return Some(pooler);
            }
            // Another process took the port.
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(since.elapsed() < PATIENCE, "it doesn't start:\n{log}");
            pooler.folder = PathBuf::new();
        }
    }

    /// For `PostgresBackend::connect`.
    pub fn url(&self) -> String {
        url(self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it takes connections. It has ended otherwise.
    fn is_ready(&self) -> bool {
        loop {
            match self.end.recv_timeout(Duration::from_millis(3)) {
                Err(RecvTimeoutError::Disconnected) => return false,
                _ if TcpStream::connect(("127.0.0.1", self.port)).is_ok() => return true,
                _ => {}
            }
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        signal("KILL", &[self.pid]);
        let _ = self.end.recv_timeout(PATIENCE);
        if self.folder.parent().is_some() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
}

fn config(server: &Server, port: u16, settings: &[&str]) -> String {
    format!(
        "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\n{}\n",
        server.port(),
        settings.join("\n")
    )
}
