//! Files and folders that can't be written: the error has the path and the reason.
//!
//! Root may write to every file, and only root may mount. So the test runs in a process of its own,
//! with mounts of its own, where even root minds the permissions of files.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use tower_api_key::SqliteBackend;

use crate::{run, shell, support::folder::Folder};

const NOT_WRITABLE: &[&str] = &["the file and its folder must be writable"];
const INSIDE: &str = "TOWER_API_KEY_TEST_OWN_MOUNTS";

/// Whether this is the process with mounts of its own. If not, runs `test` in one, where it may.
fn has_own_mounts(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let enter = || {
        let mut enter = Command::new("unshare");
        enter.args(["--mount", "--", "setpriv"]);
        enter.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
        enter
    };
    let may_enter = enter().arg("true").stderr(Stdio::null()).status();
    if !may_enter.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: needs root, to mount a folder read-only");
        return false;
    }
    let mut again = enter();
    again.arg(env::current_exe().unwrap());
    again
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    assert!(again.status().unwrap().success());
    false
}

fn mount_read_only(path: &Path) {
    for options in [&["--bind"][..], &["-o", "remount,bind,ro"]] {
        let mut mount = Command::new("mount");
        mount.args(options).arg(path);
        if options == ["--bind"] {
            mount.arg(path);
        }
        assert!(mount.status().unwrap().success());
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn refused(path: &Path, reasons: &[&str]) {
    let error = SqliteBackend::open(path).await.unwrap_err();
    let printed = format!("{error:?}");
    let path = path.display().to_string();
    assert_eq!(printed.matches(&path).count(), 1, "{printed}");
    let names_one = reasons.iter().any(|reason| printed.contains(reason));
    assert!(names_one, "{path}: {printed}");
}

#[tokio::test]
async fn g13_what_cannot_be_written_is_named_with_the_reason() {
    if !has_own_mounts("sqlite::read_only::g13_what_cannot_be_written_is_named_with_the_reason") {
        return;
    }
    let folder = Folder::new("sqlite-mounts");
    let new = |name: &str| {
        let inner = folder.join(name);
        fs::create_dir(&inner).unwrap();
        inner
    };
    let names = ["mounted", "file", "crashed", "protected", "empty"];
    let [mounted, file, crashed, protected, empty] = names.map(new);
    for folder in [&mounted, &file, &crashed, &protected] {
        drop(SqliteBackend::open(folder.join("keys.db")).await.unwrap());
    }
    // What a process leaves that was killed: its log, with what isn't in the file yet.
    let mut open = shell(&crashed.join("keys.db")).await;
    run(&mut open, "CREATE TABLE tower_api_unused (id)").await;
    fs::write(empty.join("keys.db"), "").unwrap();

    for folder in [&mounted, &crashed, &empty] {
        mount_read_only(folder);
        refused(&folder.join("keys.db"), NOT_WRITABLE).await;
        refused(&folder.join("new.db"), &["Read-only file system"]).await;
    }
    mount_read_only(&file.join("keys.db"));
    refused(&file.join("keys.db"), NOT_WRITABLE).await;
    set_mode(&protected, 0o500);
    refused(&protected.join("keys.db"), NOT_WRITABLE).await;
    refused(&protected.join("new.db"), &["Permission denied"]).await;
    set_mode(&protected, 0o700);
    set_mode(&protected.join("keys.db"), 0o400);
    refused(&protected.join("keys.db"), &["the file is read-only"]).await;
    drop(open);
    for path in [&mounted, &crashed, &empty, &file.join("keys.db")] {
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(path);
        assert!(unmount.status().unwrap().success());
    }
}

#[tokio::test]
async fn a_path_that_is_no_file_is_named_with_the_reason() {
    let folder = Folder::new("sqlite-no-file");
    fs::create_dir(folder.join("keys.db")).unwrap();
    fs::write(folder.join("text"), "text").unwrap();
    refused(&folder.join("keys.db"), &["is a folder"]).await;
    let missing = folder.join("missing/keys.db");
    refused(&missing, &["the folder does not exist, create it first"]).await;
    refused(&folder.join("text/keys.db"), &["Not a directory"]).await;
    std::os::unix::fs::symlink(&missing, folder.join("link.db")).unwrap();
    refused(&folder.join("link.db"), &["unable to open database file"]).await;
}
