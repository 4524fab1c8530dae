//! Changes that the database ignores, as a trigger that returns NULL makes it.

use super::{
    bench::{Bench, at},
    report::{Broken, Outcome, ensure},
};
use crate::backend::{ApiKeyBackend, Touch};

/// If the caller can freeze a record.
pub(super) async fn changes_are_errors<B: ApiKeyBackend>(bench: &Bench<B>) -> Outcome {
    let Some(freeze) = &bench.settings.freeze else {
        return Ok(());
    };
    let user = bench.user("frozen");
    let (frozen, other) = (bench.stored(&user).await?, bench.stored(&user).await?);
    freeze(frozen.id)
        .await
        .map_err(|error| Broken(format!("it couldn't be frozen: {error}")))?;
    for node in 0..2 {
        let node = bench.node(node);
        let mut successor = bench.key(&user)?;
        successor.predecessor = Some(frozen.id);
        let changed = bench.next(&frozen)?;
        let mut rotated = changed.clone();
        rotated.successor = Some(successor.id);
        let touch = Touch::new(frozen.id, at(9));
        let answers = [
            ("update", node.update(&changed, frozen.version).await.err()),
            ("revoke", node.revoke(&frozen.id, at(9), None).await.err()),
            (
                "rotate",
                node.rotate(&successor, &rotated, frozen.version)
                    .await
                    .err(),
            ),
            ("touch", node.touch(&[touch]).await.err()),
            ("delete", node.delete(&frozen.id).await.err()),
        ];
        for (method, error) in answers {
            ensure!(
                error.is_some(),
                "the database ignored a change, and `{method}` reported no error"
            );
        }
        bench
            .lacks(&successor.id, "after a rotation that failed")
            .await?;
    }
    bench.holds(&frozen, "after changes that failed").await?;
    ensure!(
        bench.here().delete(&other.id).await?,
        "beside a frozen record, another one can't be deleted"
    );
    Ok(())
}
