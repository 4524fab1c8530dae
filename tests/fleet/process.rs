//! A node as the process that started it sees it.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use reqwest::Client;

use super::node::{BELIEVED, LISTENING, URL};

/// The test that is the node when this program is started as one.
const NODE_TEST: &str = "a_node_of_the_fleet";

/// After how long an answer is taken for one that never comes. Layers answer sooner: after
/// `load_timeout`.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct NodeProcess {
    child: Child,
    address: String,
    client: Client,
}

/// What a node answers to a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    Revoked,
    Unavailable,
    Other(String),
}

impl NodeProcess {
    /// This program once more; it listens when this returns.
    pub fn start(url: &str, believed: Duration) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", NODE_TEST, "--ignored", "--nocapture"])
            .env(URL, url)
            .env(BELIEVED, believed.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(LISTENING).map(str::to_owned))
            .expect("the node says where it listens");
        // It may say more, and must not wait for a reader.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self {
            child,
            address,
            client: client(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn create(&self) -> Result<String, String> {
        self.control("keys").await
    }

    /// Whether it was this call that revoked it.
    pub async fn revoke(&self, id: &str) -> Result<bool, String> {
        let changed = self.control(&format!("keys/{id}/revoke")).await?;
        changed.parse().map_err(|_| changed)
    }

    async fn control(&self, path: &str) -> Result<String, String> {
        let request = self.client.post(format!("http://{}/{path}", self.address));
        let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
        let is_done = answer.status() == 200;
        let text = answer.text().await.map_err(|error| format!("{error:?}"))?;
        if is_done { Ok(text) } else { Err(text) }
    }

    pub async fn stats(&self) -> String {
        let request = self.client.get(format!("http://{}/stats", self.address));
        match request.send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// A request with this token, on the client's connections.
    pub async fn ask(&self, client: &Client, token: &str) -> Answer {
        let request = client.get(format!("http://{}/", self.address));
        let answer = match request.bearer_auth(token).send().await {
            Ok(answer) => answer,
            Err(error) => return Answer::Other(format!("{error:?}")),
        };
        let status = answer.status().as_u16();
        let has_retry_after = answer.headers().contains_key("retry-after");
        let body = match answer.text().await {
            Ok(body) => body,
            Err(error) => return Answer::Other(format!("{error:?}")),
        };
        let says = |code: &str| body.contains(&format!("\"code\":\"{code}\""));
        match status {
            200 if body == "user_1" => Answer::Accepted,
            401 if says("revoked") => Answer::Revoked,
            503 if says("unavailable") && has_retry_after => Answer::Unavailable,
            _ => Answer::Other(format!("{status} {body}")),
        }
    }

    /// Ends it; that it had ended before is a problem.
    pub fn stop(mut self) -> Result<(), String> {
        if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
            return Err(format!("it has ended by itself: {status}"));
        }
        drop(self.child.stdin.take());
        let since = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if since.elapsed() > PATIENCE {
                return Err("it doesn't end when its standard input does".to_owned());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections of one's own.
pub fn client() -> Client {
    Client::builder()
        .no_proxy()
        .http1_only()
        .timeout(PATIENCE)
        .build()
        .unwrap()
}
