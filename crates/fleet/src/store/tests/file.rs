//! What only a file of SQLite does.

use super::*;
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

fn file(f: &Fixture) -> std::path::PathBuf {
    match &f.database {
        Database::File(path) => path.clone(),
        Database::Postgres(_) => panic!("this test is of files"),
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_the_own_one_is_kept() {
    let f = fixture().await;
    let path = file(&f);
    f.accept("a").await;
    f.store.close().await;
    let again = Store::open(&Database::File(path.clone())).await.expect("opened again");
    assert!(again.device("a").await.expect("read").is_some());
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'x', 1, x'00', 0)")
        .execute(&again.readers)
        .await
        .expect("written");
    again.close().await;
    let newer = Store::open(&Database::File(path.clone())).await;
    assert!(matches!(newer, Err(StoreError::Newer { found: 99, known: 6, .. })), "{newer:?}");
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_brought_up_to_date() {
    let f = fixture().await;
    f.accept("a").await;
    let id = f.add(task("app", 1, |_| {})).await;
    f.store.close().await;
    let path = file(&f);
    let mut old =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.expect("opened");
    let back = "DROP TABLE sessions; DROP TABLE requests; ALTER TABLE actions DROP COLUMN position; ALTER TABLE actions DROP COLUMN lacks; \
                ALTER TABLE actions DROP COLUMN said; DELETE FROM _sqlx_migrations WHERE version IN (2, 5)";
    sqlx::raw_sql(back).execute(&mut old).await.expect("taken back");
    old.close().await.expect("closed");
    let copy = path.with_file_name("copy.db");
    Store::backup(&path, &copy).await.expect("an old one is copied as it is");
    let store = Store::open(&Database::File(path.clone())).await.expect("opened");
    let open = store.open_actions("a").await.expect("read");
    store.lacks(open[0].id, Some((0, vec![[0, 8]])), NOW).await.expect("noted");
    assert_eq!((open[0].task, store.open_sessions().await.expect("read").len()), (id, 0));
}

#[tokio::test]
async fn a_backup_is_a_database_of_its_own() {
    let f = fixture().await;
    f.accept("a").await;
    let path = file(&f);
    let copy = path.with_file_name("copy.db");
    Store::backup(&path, &copy).await.expect("copied");
    f.accept("b").await;
    assert!(
        matches!(Store::backup(&path, &copy).await, Err(StoreError::Conflict(_))),
        "nothing is overwritten"
    );
    let restored = Store::open(&Database::File(copy.clone())).await.expect("opened");
    let devices: Vec<String> =
        restored.devices("", 10).await.expect("read").into_iter().map(|d| d.id).collect();
    assert_eq!(devices, ["a"]);

    // One that is damaged is not copied: the copy would be built anew from the rows that are left.
    restored.close().await;
    let mut bytes = std::fs::read(&copy).expect("read");
    bytes.chunks_mut(4096).skip(2).for_each(|page| page[..64].fill(0xff));
    std::fs::write(&copy, bytes).expect("written");
    let second = path.with_file_name("second.db");
    let refused = Store::backup(&copy, &second).await;
    assert!(matches!(refused, Err(StoreError::Damaged(_) | StoreError::Away(_))), "{refused:?}");
    assert!(!second.exists());
}

/// SQLite waits for a lock for five seconds, and then the database counts as away.
#[tokio::test]
async fn a_locked_database_is_away_and_comes_back() {
    let f = fixture().await;
    f.accept("a").await;
    let options = SqliteConnectOptions::new().filename(file(&f));
    let other = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("opened");
    let mut lock = other.acquire().await.expect("a connection");
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut *lock).await.expect("locked");
    let away = f.store.decide_device("b", DeviceState::Accepted, None, NOW).await;
    assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
    assert!(f.store.device("a").await.expect("readers go on in WAL mode").is_some());
    sqlx::query("ROLLBACK").execute(&mut *lock).await.expect("unlocked");
    assert!(f.store.device("b").await.expect("read").is_none(), "nothing was claimed");
    f.accept("b").await;
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |args: &[&str]| {
        std::process::Command::new(args[0]).args(&args[1..]).status().is_ok_and(|s| s.success())
    };
    let path = dir.path().to_str().expect("UTF-8").to_owned();
    if !run(&["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", &path]) {
        assert!(
            std::env::var_os("MCP_TESTS_MUST_RUN").is_none(),
            "would be skipped: no right to mount a small file system"
        );
        eprintln!("skipped: no right to mount a small file system");
        return;
    }
    let outcome = tokio::spawn(async move {
        let dir = std::path::PathBuf::from(path);
        let store = Store::open(&Database::File(dir.join("fleet.db"))).await.expect("opened");
        store.decide_device("kept", DeviceState::Accepted, None, NOW).await.expect("accepted");
        // Fill what is left.
        let mut filler = std::fs::File::create(dir.join("filler")).expect("created");
        while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
        let attributes = BTreeMap::from([("a".to_owned(), "x".repeat(100_000))]);
        let full = store.set_attributes("kept", &attributes, NOW).await;
        assert!(matches!(full, Err(StoreError::Away(_))), "{full:?}");
        let kept = store.device("kept").await.expect("read").expect("there");
        assert!(kept.attributes.is_empty() && kept.wants_attributes, "nothing is claimed");
        drop(filler);
        std::fs::remove_file(dir.join("filler")).expect("removed");
        store.set_attributes("kept", &attributes, NOW).await.expect("there is room again");
        store.close().await;
    })
    .await;
    assert!(run(&["umount", dir.path().to_str().expect("UTF-8")]));
    outcome.expect("no panic");
}
