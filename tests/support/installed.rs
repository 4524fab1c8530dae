//! The installed PostgreSQL: where its programs are, who runs them, and a data folder to copy.

use std::{
    env, fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
    thread,
};

/// Who runs the server where the tests are run by root, whom PostgreSQL refuses.
#[derive(Clone, Copy)]
pub struct User {
    uid: u32,
    gid: u32,
}

/// The folder of `postgres` and `initdb`.
pub fn programs() -> Option<PathBuf> {
    let has_both = |folder: &PathBuf| {
        let is_there = |name: &str| folder.join(name).is_file();
        is_there("postgres") && is_there("initdb")
    };
    let in_path = env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .collect();
    installed.sort_unstable();
    env::split_paths(&in_path)
        .chain(installed.into_iter().rev().map(|(_, folder)| folder))
        .find(has_both)
}

pub fn unprivileged() -> Option<User> {
    let own = Command::new("id").arg("-u").output().unwrap();
    if own.stdout != b"0\n" {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let is_it = |line: &&str| line.split(':').next() == Some(name);
        let fields: Vec<_> = users.lines().find(is_it)?.split(':').collect();
        let number = |at: usize| fields[at].parse().ok();
        Some(User {
            uid: number(2)?,
            gid: number(3)?,
        })
    };
    let found = find("postgres").or_else(|| find("nobody"));
    Some(found.expect("a user to run PostgreSQL: it refuses root"))
}

/// A program as the unprivileged user, and with the signal that it gets when this thread ends.
pub fn user_command(program: &str, user: Option<User>, at_our_end: Option<&str>) -> Command {
    let mut arguments = Vec::new();
    if let Some(User { uid, gid }) = user {
        arguments.extend([format!("--reuid={uid}"), format!("--regid={gid}")]);
        arguments.push("--clear-groups".to_owned());
    }
    if cfg!(target_os = "linux") {
        arguments.extend(at_our_end.map(|signal| format!("--pdeathsig={signal}")));
    }
    if arguments.is_empty() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(arguments).arg("--").arg(program);
    command
}

/// Starts a process; returns its id, and a channel that says nothing and closes when it has ended.
pub fn spawn(mut command: Command) -> (u32, Receiver<()>) {
    let (started, pid) = mpsc::channel();
    let (alive, end) = mpsc::channel();
    // On a thread of its own: the signal at the parent's death is that of the parent's thread.
    thread::spawn(move || {
        let mut child = command.spawn().unwrap();
        started.send(child.id()).unwrap();
        let _ = child.wait();
        drop(alive);
    });
    (pid.recv().unwrap(), end)
}

/// Where servers have their folders: one that the user can reach and write.
pub fn base(user: Option<User>) -> PathBuf {
    let temporary = env::temp_dir();
    // Unit tests have none of their own.
    let ours = option_env!("CARGO_TARGET_TMPDIR").map_or(temporary.as_path(), Path::new);
    let Some(User { uid, gid }) = user else {
        let base = ours.join("postgres");
        fs::create_dir_all(&base).unwrap();
        return base;
    };
    let mut look = user_command("test", user, None);
    let reaches = look.arg("-x").arg(ours).status().unwrap().success();
    let base = if reaches { ours } else { &temporary };
    let base = base.join(format!("postgres-{uid}"));
    fs::create_dir_all(&base).unwrap();
    chown(&base, Some(uid), Some(gid)).unwrap();
    base
}

/// An initialised data folder to copy: making one takes a second.
pub fn template(base: &Path, programs: &Path, user: Option<User>) -> PathBuf {
    let name = programs.to_str().unwrap().replace('/', "_");
    let template = base.join(format!("template{name}"));
    if template.is_dir() {
        return template;
    }
    let new = base.join(unique("new"));
    let mut make = user_command(programs.join("initdb").to_str().unwrap(), user, None);
    make.args(["--no-sync", "--username=postgres", "--auth=trust"])
        .args(["--locale=C", "--encoding=UTF8", "--wal-segsize=1", "-D"])
        .arg(&new)
        .current_dir(base);
    succeeds(&mut make);
    // Whoever was quicker has made the same.
    if fs::rename(&new, &template).is_err() {
        fs::remove_dir_all(&new).unwrap();
    }
    template
}

/// Removes the folders of processes that had no time to.
pub fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let owner = name
            .split('-')
            .nth(1)
            .filter(|_| !name.starts_with("template"));
        let is_gone =
            |pid: &str| Path::new("/proc/self").exists() && !Path::new("/proc").join(pid).exists();
        if owner.is_some_and(is_gone) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{count}", process::id())
}

pub fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
