//! The same tests with PostgreSQL, and what only PostgreSQL does.

use super::*;
use crate::store::postgres::Postgres;

/// Runs tests of this program again, whose stores are in databases of `server`.
fn again(server: &Postgres, words: &[&str]) {
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    let ran = command
        .args(words)
        .env(super::super::postgres::VARIABLE, server.url("postgres"))
        .output()
        .expect("ran");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(!said.contains("running 0 tests"), "{said}");
}

#[test]
fn the_store_is_the_same_in_postgresql() {
    let Some(server) = Postgres::start() else { return };
    again(
        &server,
        &["store::tests::", "--skip", "store::tests::file::", "--skip", "store::tests::postgres::"],
    );
}

#[test]
fn the_server_is_the_same_with_postgresql() {
    let Some(server) = Postgres::start() else { return };
    // These open or lock a file.
    let files = [
        "a_device_that_says_too_much_is_heard",
        "a_slow_database_is_waited_for",
        "a_server_keeps_its_state",
        "a_database_that_is_away",
        "while_the_database_is_away",
        "while_the_database_is_locked",
    ];
    let skipped = files.iter().flat_map(|name| ["--skip", name]);
    again(&server, &["server::tests::"].into_iter().chain(skipped).collect::<Vec<_>>());
}

#[tokio::test]
async fn several_servers_use_a_database_and_write_one_after_the_other() {
    let Some(server) = Postgres::start() else { return };
    let database = server.database("fleet").await;
    // They start at the same time, and one of them makes the tables.
    let (one, other) = tokio::join!(Store::open(&database), Store::open(&database));
    let stores = [one.expect("opened"), other.expect("opened")];
    // Each change reads what is there, and writes what follows from it.
    let counted = |store: Store, number: u32| async move {
        let name = format!("{number}");
        store.decide_device(&name, DeviceState::Accepted, None, NOW).await?;
        store
            .write(|connection| {
                Box::pin(async move {
                    let (most,): (Option<i64>,) =
                        sqlx::query_as("SELECT MAX(version) FROM roots").fetch_one(&mut *connection).await?;
                    sqlx::query("INSERT INTO roots (version, envelope) VALUES ($1, $2)")
                        .bind(most.unwrap_or(0) + 1)
                        .bind(vec![0_u8])
                        .execute(connection)
                        .await?;
                    Ok(())
                })
            })
            .await
    };
    let changes = (0..100).map(|number| tokio::spawn(counted(stores[number as usize % 2].clone(), number)));
    for change in changes.collect::<Vec<_>>() {
        change.await.expect("a task").expect("changed");
    }
    assert_eq!(stores[0].newest_root().await.expect("read"), 100);
    for number in 0..100 {
        assert!(stores[1].device(&number.to_string()).await.expect("read").is_some(), "{number}");
    }
}

#[tokio::test]
async fn what_a_later_program_has_made_is_left_alone() {
    let Some(server) = Postgres::start() else { return };
    let database = server.database("fleet").await;
    let store = Store::open(&database).await.expect("opened");
    store
        .write(|connection| {
            Box::pin(async move {
                let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                             VALUES (99, 'x', true, '', 0)";
                sqlx::query(later).execute(connection).await?;
                Ok(())
            })
        })
        .await
        .expect("written");
    store.close().await;
    let newer = Store::open(&database).await;
    assert!(matches!(newer, Err(StoreError::Newer { found: 99, known: 6, .. })), "{newer:?}");
}

#[tokio::test]
async fn a_database_that_stops_is_away_and_comes_back() {
    let Some(mut server) = Postgres::start() else { return };
    let database = server.database("fleet").await;
    let store = Store::open(&database).await.expect("opened");
    store.decide_device("a", DeviceState::Accepted, None, NOW).await.expect("accepted");
    server.stop();
    let away = store.decide_device("b", DeviceState::Accepted, None, NOW).await;
    assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
    let away = store.device("a").await;
    assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
    server.go_on();
    assert!(store.device("b").await.expect("read").is_none(), "nothing was claimed");
    assert!(store.device("a").await.expect("read").is_some());
    store.decide_device("b", DeviceState::Accepted, None, NOW).await.expect("accepted");
    // It is there, and says nothing.
    server.freeze(true);
    let away = store.decide_device("c", DeviceState::Accepted, None, NOW).await;
    assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
    server.freeze(false);
    store.decide_device("d", DeviceState::Accepted, None, NOW).await.expect("accepted");
}
