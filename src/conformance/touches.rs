//! Noting that keys were used.

use super::{
    bench::{Bench, CONTENDERS, at},
    report::{Broken, Outcome, ensure},
};
use crate::{
    backend::{ApiKeyBackend, Touch},
    key::ApiKey,
};

pub(super) async fn never_go_back<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let key = bench.stored(&bench.user("touched")).await?;
    let touch = |number| Touch::new(key.id, at(number));
    for (touches, expected) in [
        (vec![touch(2)], 2),
        (vec![touch(1)], 2),
        (vec![touch(4), touch(3)], 4),
        (vec![touch(5), touch(6)], 6),
        (vec![touch(6)], 6),
        (vec![], 6),
    ] {
        bench.here().touch(&touches).await?;
        let expected = ApiKey {
            last_used_at: Some(at(expected)),
            ..key.clone()
        };
        bench.holds(&expected, "after `touch`").await?;
    }
    Ok(())
}

pub(super) async fn ignore_unknown_keys<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("touched beside unknown");
    let (key, deleted) = (bench.stored(&user).await?, bench.stored(&user).await?);
    bench.here().delete(&deleted.id).await?;
    let unknown = bench.id();
    let ids = [unknown, key.id, deleted.id];
    bench
        .here()
        .touch(&ids.map(|id| Touch::new(id, at(1))))
        .await?;
    for id in [unknown, deleted.id] {
        bench
            .lacks(&id, "after a `touch` of a key that isn't there")
            .await?;
    }
    let expected = ApiKey {
        last_used_at: Some(at(1)),
        ..key
    };
    bench
        .holds(&expected, "after a `touch` that names unknown keys, too")
        .await
}

/// Several nodes note the uses of the same keys, in different orders, while one of them is updated.
pub(super) async fn meet<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let user = bench.user("touched at once");
    let mut keys = Vec::new();
    for _ in 0..50 {
        keys.push(bench.stored(&user).await?);
    }
    let first = bench.next(&keys[0])?;
    let ids: Vec<_> = keys.iter().map(|key| key.id).collect();
    let answers = bench.contend(|number, node| {
        let used_at = at(number as u64);
        let mut touches: Vec<_> = ids.iter().map(|id| Touch::new(*id, used_at)).collect();
        if number % 2 == 0 {
            touches.reverse();
        }
        let first = first.clone();
        async move {
            if number == CONTENDERS / 2 {
                ensure!(
                    node.update(&first, 1).await?,
                    "`update` didn't find the version that is stored: `touch` has changed it"
                );
            }
            node.touch(&touches).await.map_err(Broken::from)
        }
    });
    answers.await?.into_iter().collect::<Outcome>()?;
    for key in std::iter::once(&first).chain(&keys[1..]) {
        let expected = ApiKey {
            last_used_at: Some(at(CONTENDERS as u64 - 1)),
            ..key.clone()
        };
        bench
            .holds(&expected, "after 64 calls of `touch` at once")
            .await?;
    }
    Ok(())
}
