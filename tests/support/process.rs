//! An example as a process: started, asked over HTTP, and ended by a signal.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use reqwest::{Method, RequestBuilder};

use super::http1;

/// An example that serves on a free port. It ends when this is dropped, however the test went.
pub struct ExampleProcess {
    child: Child,
    /// What it has printed, up to where it says that it listens.
    pub lines: Vec<String>,
    stdout: Receiver<String>,
}

impl ExampleProcess {
    /// Starts it, and waits until it listens.
    pub fn start(name: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary(name));
        command.envs(variables.iter().copied());
        Self::run(name, command)
    }

    /// The same in a folder, where it leaves its files.
    pub fn start_in(name: &str, folder: &Path) -> Self {
        let mut command = Command::new(binary(name));
        command.current_dir(folder);
        Self::run(name, command)
    }

    fn run(name: &str, mut command: Command) -> Self {
        command.env("ADDR", "127.0.0.1:0");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut process = Self {
            child,
            lines: Vec::new(),
            stdout: receiver,
        };
        while !process
            .lines
            .last()
            .is_some_and(|line| line.starts_with("listening on "))
        {
            match process.stdout.recv_timeout(PATIENCE) {
                Ok(line) => process.lines.push(line),
                Err(error) => panic!(
                    "{name} doesn't listen ({error}); it said {:?}",
                    process.lines
                ),
            }
        }
        process
    }

    /// What it printed after `label: `.
    pub fn value(&self, label: &str) -> String {
        let value = |line: &String| {
            line.strip_prefix(label)?
                .strip_prefix(": ")
                .map(str::to_owned)
        };
        self.lines
            .iter()
            .find_map(value)
            .unwrap_or_else(|| panic!("no `{label}` in {:?}", self.lines))
    }

    pub fn url(&self) -> String {
        self.lines
            .last()
            .unwrap()
            .strip_prefix("listening on ")
            .unwrap()
            .to_owned()
    }

    pub fn request(&self, method: Method, path: &str, token: Option<&str>) -> RequestBuilder {
        let url = format!("{}{path}", self.url());
        let request = http1().request(method, url).timeout(PATIENCE);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The status and the body.
    pub async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let request = self.request(Method::GET, path, token);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Asks it to end, as a service manager would, and checks that it does so as one expects.
    pub fn stop(self) {
        self.stop_with("TERM");
    }

    pub fn stop_with(mut self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        // Its output ends when it does.
        let end = self.stdout.recv_timeout(PATIENCE);
        assert_eq!(
            end,
            Err(RecvTimeoutError::Disconnected),
            "after SIG{signal}"
        );
        assert_eq!(
            self.child.wait().unwrap().code(),
            Some(0),
            "after SIG{signal}"
        );
    }
}

impl Drop for ExampleProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// After how long a process that says nothing is taken for stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// The built example: cargo puts it beside the folder that this test is in.
pub fn binary(name: &str) -> PathBuf {
    let this = env::current_exe().unwrap();
    let path = this.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.is_file(),
        "{} isn't built: run `cargo build --all-features --examples` before this test alone",
        path.display()
    );
    path
}
