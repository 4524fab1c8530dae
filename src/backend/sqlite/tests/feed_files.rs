//! A file that is moved, removed or replaced while it is open.

use std::fs;

use super::{ChangeFeed as _, Folder, SqliteBackend, feed, id, key, read};
use crate::{
    backend::{ApiKeyBackend as _, KeySource as _, PageRequest, Touch},
    error::BackendError,
};

/// Every way to ask the backend.
async fn ask_all(backend: &SqliteBackend) -> Vec<Result<(), BackendError>> {
    let touch = Touch::new(id(1), key(1).created_at);
    vec![
        backend.get_many(&[id(1).lookup_key()]).await.map(drop),
        backend
            .list_for_user("user_1", &PageRequest::new())
            .await
            .map(drop),
        backend.insert(&key(1)).await.map(drop),
        backend.update(&key(1), 1).await.map(drop),
        backend.touch(&[touch]).await,
        backend.delete(&id(9)).await.map(drop),
        super::Feed::open(backend.0.clone()).await.map(drop),
    ]
}

/// Nothing is known any more, until the same file is back.
#[tokio::test]
async fn a_file_that_is_not_the_one_under_its_name_answers_nothing() {
    let folder = Folder::new("feed-moved");
    let (file, aside) = (folder.file(), folder.0.join("aside.db"));
    let backend = SqliteBackend::open(&file).await.unwrap();
    backend.insert(&key(1)).await.unwrap();
    let mut feed = feed(&backend).await;
    assert_eq!(read(&mut feed).await, []);

    let moved = || fs::rename(&file, &aside).unwrap();
    let replaced = || {
        moved();
        fs::copy(&aside, &file).unwrap();
    };
    for (what, is_put_aside) in [("moved", &moved as &dyn Fn()), ("replaced", &replaced)] {
        is_put_aside();
        feed.read().await.unwrap_err();
        for (number, answer) in ask_all(&backend).await.into_iter().enumerate() {
            let error = answer.expect_err(&format!("{what}, question {number}"));
            assert!(!error.is_corrupt());
        }
        fs::rename(&aside, &file).unwrap();
        for answer in ask_all(&backend).await {
            answer.unwrap();
        }
        feed.read().await.unwrap();
    }
}
