//! Uses of keys: noted in batches, by all nodes, and never a change.

use std::time::Duration;

use tower_api_key::{ApiKeyBackend, KeyId, KeySource, PostgresBackend, Touch};

use crate::{
    records::record,
    support::{postgres::Server, start},
};

fn id(number: u32) -> KeyId {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    KeyId::from_bytes(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_never_moves_back_and_is_no_change() {
    let Some(server) = Server::start() else {
        return;
    };
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let mut key = record(1);
    key.last_used_at = None;
    assert!(backend.insert(&key).await.unwrap());
    server.psql("TRUNCATE tower_api_key_changes").await;
    let at = |seconds| start() + Duration::from_secs(seconds);
    let unknown = Touch::new(id(99), at(1));
    for (touches, wanted) in [
        (vec![Touch::new(key.id, at(20)), unknown], 20),
        (vec![Touch::new(key.id, at(10))], 20),
        // Twice in one batch, the earlier one last.
        (
            vec![Touch::new(key.id, at(40)), Touch::new(key.id, at(30))],
            40,
        ),
        (vec![], 40),
    ] {
        backend.touch(&touches).await.unwrap();
        let read = backend.get_many(&[key.id.lookup_key()]).await.unwrap();
        assert_eq!(read[0].last_used_at, Some(at(wanted)));
        assert_eq!(read[0].version, key.version);
    }
    let mut connection = server.connection().await;
    let count = "SELECT count(*) FROM tower_api_key_changes";
    let logged: i64 = tower_api_key::sqlx::query_scalar(count)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(logged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_note_the_same_keys_in_opposite_order_do_not_block_each_other() {
    let Some(server) = Server::start() else {
        return;
    };
    let one = PostgresBackend::connect(&server.url()).await.unwrap();
    let other = PostgresBackend::connect(&server.url()).await.unwrap();
    server
        .psql(
            "INSERT INTO tower_api_keys (id, user_id, display_prefix, pepper, secret_hash)
            SELECT decode(lpad(to_hex(n), 48, '0'), 'hex'), 'u',
                repeat('x', 16), 'v1', repeat('ab', 32)
            FROM generate_series(0, 999) AS n ORDER BY md5(n::text)",
        )
        .await;
    let mut connection = server.connection().await;
    let mut ids: Vec<KeyId> = Vec::new();
    let read = tower_api_key::sqlx::query_scalar("SELECT id FROM tower_api_keys ORDER BY id");
    let rows: Vec<Vec<u8>> = read.fetch_all(&mut connection).await.unwrap();
    ids.extend(
        rows.into_iter()
            .map(|id| KeyId::from_bytes(id.try_into().unwrap())),
    );
    assert_eq!(ids.len(), 1_000);
    for round in 1..=50 {
        let at = start() + Duration::from_secs(round * 100);
        // Neither is later than the other for all keys, so both have something to write.
        let used =
            |id: &KeyId, every| at + Duration::from_millis(u64::from(id.as_bytes()[23]) % every);
        let all: Vec<_> = ids.iter().map(|id| Touch::new(*id, used(id, 7))).collect();
        let reversed: Vec<_> = ids
            .iter()
            .rev()
            .map(|id| Touch::new(*id, used(id, 5)))
            .collect();
        // Few keys are looked up in another way than many.
        let few: Vec<_> = all.iter().step_by(97).copied().collect();
        let some: Vec<_> = reversed.iter().step_by(9).copied().collect();
        let touched = tokio::join!(
            one.touch(&all),
            other.touch(&reversed),
            one.touch(&some),
            other.touch(&few)
        );
        for touched in [touched.0, touched.1, touched.2, touched.3] {
            touched.unwrap();
        }
        let places = [ids[0], ids[500], ids[999]].map(|id| id.lookup_key());
        for key in one.get_many(&places).await.unwrap() {
            let latest = used(&key.id, 7).max(used(&key.id, 5));
            assert_eq!(key.last_used_at, Some(latest));
        }
    }
    assert!(!server.log().contains("deadlock"));
}
