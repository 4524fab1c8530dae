//! A synchronous receiver of what the server writes, on the other end of a slow network.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tower_api_key::sqlx::query_scalar;

use crate::{
    network::proxy::{Proxy, Rule},
    support::{folder::Folder, postgres::Server},
};

/// How long each way takes.
const DELAY: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "receiver";

/// Each commit waits until this has flushed it. It ends when it is dropped.
pub(crate) struct Receiver {
    child: Child,
    _proxy: Proxy,
    _folder: Folder,
}

impl Receiver {
    /// Starts it, and waits until commits wait for it.
    pub(crate) async fn start(server: &Server) -> Self {
        let proxy = Proxy::start(server.port()).await;
        proxy.set(Rule::Delay(DELAY));
        let folder = Folder::new("flood-receiver");
        let port = proxy.port();
        // Without TLS, whose messages the proxy doesn't know.
        let to = format!(
            "host=127.0.0.1 port={port} user=postgres application_name={NAME} \
             sslmode=disable gssencmode=disable"
        );
        let child = Command::new(program("pg_receivewal"))
            .args(["--synchronous", "--no-password", "--dbname", &to])
            .arg("--directory")
            .arg(&folder.0)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let receiver = Self {
            child,
            _proxy: proxy,
            _folder: folder,
        };
        server
            .psql(&format!(
                "ALTER SYSTEM SET synchronous_standby_names = '{NAME}'"
            ))
            .await;
        server.psql("SELECT pg_reload_conf()").await;
        let mut connection = server.connection().await;
        let since = Instant::now();
        loop {
            let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            let receivers: i64 = query_scalar(state)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            if receivers == 1 {
                return receiver;
            }
            let all =
                "SELECT coalesce(string_agg(r::text, '; '), 'none') FROM pg_stat_replication r";
            let all: String = query_scalar(all).fetch_one(&mut connection).await.unwrap();
            assert!(since.elapsed() < PATIENCE, "no synchronous receiver: {all}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds a program of PostgreSQL's in `PATH` and in `/usr/lib/postgresql`.
fn program(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let installed = installed.flatten().map(|entry| entry.path().join("bin"));
    let mut folders: Vec<_> = env::split_paths(&path).chain(installed).collect();
    folders.retain(|folder| folder.join(OsStr::new(name)).is_file());
    folders.pop().expect("PostgreSQL's programs").join(name)
}
