//! Data directories that cannot be used: one clear line that says what to do, and an end with failure.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::Call;
use crate::gateway::Start;
use crate::world::{add_key, chat};

/// The line that tells what went wrong, which is the only one of its kind.
pub(crate) fn last_words(log: &str) -> &str {
    let mut lines = log.lines().filter(|line| line.starts_with("omniroute: "));
    let line = lines.next().unwrap_or_else(|| panic!("no last words in {log}"));
    assert_eq!(lines.next(), None, "{log}");
    assert!(!log.contains("panicked"), "{log}");
    line
}

async fn assert_refused(data_dir: &Path, words: &[&str]) {
    let (status, log) = Start::new().data_dir(data_dir).fail().await;
    assert!(!status.success(), "{log}");
    let line = last_words(&log);
    for word in words {
        assert!(line.contains(word), "`{word}` in {line}");
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.starts_with(b"0\n")
}

#[tokio::test]
async fn a_data_directory_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "hello").unwrap();
    assert_refused(&file, &["data directory", &file.display().to_string()]).await;
    assert_refused(&file.join("below"), &["data directory"]).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
}

#[tokio::test]
async fn a_database_that_is_none_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("storage.sqlite");
    let noise: Vec<u8> =
        (0..20_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, &noise).unwrap();
    assert_refused(folder.path(), &["not a usable SQLite database", "backup"]).await;
    assert_eq!(std::fs::read(&file).unwrap(), noise);
}

#[tokio::test]
async fn a_damaged_database_is_refused_or_served_but_never_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Start::new().data_dir(folder.path()).run().await;
    add_key(&gateway, json!({})).await;
    let mut gateway = gateway;
    gateway.signal("TERM");
    gateway.ended().await;
    let file = folder.path().join("storage.sqlite");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 4;
    bytes[100..middle].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    assert_refused(folder.path(), &["database"]).await;
}

#[tokio::test]
async fn a_read_only_data_directory_is_refused() {
    // With and without a write-ahead log that was left behind.
    for signal in ["TERM", "KILL"] {
        refuse_read_only(signal).await;
    }
}

async fn refuse_read_only(signal: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut gateway = Start::new().data_dir(&data_dir).run().await;
    gateway.signal(signal);
    gateway.ended().await;
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(folder.path(), 0o755);
    for entry in std::fs::read_dir(&data_dir).unwrap() {
        mode(&entry.unwrap().path(), 0o444);
    }
    mode(&data_dir, 0o555);
    // Permissions do not bind root.
    let start = Start::new().data_dir(&data_dir);
    let start = if is_root() {
        let setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let can_drop = Command::new("setpriv")
            .args(&setpriv[1..])
            .arg(crate::gateway::PROGRAM)
            .arg("--version")
            .output();
        if !can_drop.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: running as root, and setpriv cannot start the program as another user");
            return;
        }
        start.through(&setpriv)
    } else {
        start
    };
    let (status, log) = start.fail().await;
    mode(&data_dir, 0o755);
    assert!(!status.success());
    let line = last_words(&log);
    assert!(line.contains("read-only") || line.contains("cannot be used"), "{line}");
}

/// A file system of one size, for as long as this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_at_the_start_is_one_clear_line() {
    let Some(disk) = SmallDisk::mount("64k") else {
        eprintln!("skipped: a small file system can only be mounted by root");
        return;
    };
    assert_refused(&disk.0.path().join("data"), &["full"]).await;
}

#[tokio::test]
async fn a_disk_that_fills_up_stops_writing_but_not_serving() {
    let Some(disk) = SmallDisk::mount("8m") else {
        eprintln!("skipped: a small file system can only be mounted by root");
        return;
    };
    let gateway = Start::new().data_dir(&disk.0.path().join("data")).run().await;
    let key = add_key(&gateway, json!({})).await;
    let ballast = disk.0.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 8 << 20]);
    let mut refused = None;
    for _ in 0..2_000 {
        let response = gateway.manage("POST", "/api/keys", &json!({"name": "x".repeat(90)})).await;
        if response.status != 201 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("a full disk takes no more keys");
    assert!(refused.status >= 500, "{}", refused.text());
    assert!(refused.text().contains("full"), "{}", refused.text());
    // Requests go on, and so does reading.
    for _ in 0..20 {
        assert_eq!(gateway.call(&chat("sim/echo").bearer(&key)).await.status, 200);
    }
    assert_eq!(gateway.call(&Call::get("/v1/models")).await.status, 200);
    assert_eq!(gateway.manage("GET", "/api/keys", &Value::Null).await.status, 200);
    // Room again: writing goes on, and what waited is written.
    std::fs::remove_file(&ballast).unwrap();
    let response = gateway.manage("POST", "/api/keys", &json!({"name": "after"})).await;
    assert_eq!(response.status, 201, "{}", response.text());
    assert!(gateway.logged(20).await.len() >= 20);
}
