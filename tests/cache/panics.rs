//! A source that panics, wherever it is called: no request ends by it, and no key is believed for
//! longer.

use std::panic::panic_any;

use tokio::{task::JoinError, time::sleep};
use tower_api_key::{
    ApiKey, ApiKeyToken, BackendError, CachedResolver, Change, ChangeFeed, ChangeSink, KeyResolver,
    KeySource, LookupKey, Pepper, Peppers, Subscription,
};

use crate::{
    MAX_STALENESS,
    node::{Node, outcome},
    support::{
        PEPPER,
        feed::{Feed, Remote, Subscribing},
        unknown_token,
    },
};

/// Where it panics: when a method is called, or when what it returned is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    GetMany,
    GetManyPolled,
    Subscribe,
    SubscribePolled,
    Read,
    ReadPolled,
    Wait,
    WaitPolled,
}

struct Panicking(In, Remote);

struct PanickingFeed(In);

fn pass(at: In, here: In) {
    if at == here {
        panic_any("the driver panics");
    }
}

impl KeySource for Panicking {
    fn get_many(
        &self,
        keys: &[LookupKey],
    ) -> impl Future<Output = Result<Vec<ApiKey>, BackendError>> + Send {
        pass(self.0, In::GetMany);
        async {
            pass(self.0, In::GetManyPolled);
            self.1.get_many(keys).await
        }
    }

    fn subscribe(
        &self,
        _: ChangeSink,
    ) -> impl Future<Output = Result<Subscription, BackendError>> + Send {
        pass(self.0, In::Subscribe);
        async {
            pass(self.0, In::SubscribePolled);
            Ok(Subscription::feed(PanickingFeed(self.0)))
        }
    }
}

impl ChangeFeed for PanickingFeed {
    fn read(&mut self) -> impl Future<Output = Result<Vec<Change>, BackendError>> + Send {
        pass(self.0, In::Read);
        async {
            pass(self.0, In::ReadPolled);
            Ok(Vec::new())
        }
    }

    fn wait(&mut self) -> impl Future<Output = ()> + Send {
        pass(self.0, In::Wait);
        async {
            pass(self.0, In::WaitPolled);
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g3_no_request_panics_along_with_a_source() {
    for at in [
        In::GetMany,
        In::GetManyPolled,
        In::Subscribe,
        In::SubscribePolled,
        In::Read,
        In::ReadPolled,
        In::Wait,
        In::WaitPolled,
    ] {
        let node = Node::new().await;
        let token = node.token().await.parse().unwrap();
        let resolver = CachedResolver::builder(Panicking(at, node.remote.clone()))
            .peppers(Peppers::new(Pepper::new("v1", PEPPER).unwrap()))
            .clock(node.clock.clone())
            .build()
            .await
            .unwrap();
        let right = match at {
            In::GetMany | In::GetManyPolled => "unavailable",
            _ => "good",
        };
        // At first, when it is tried again, and when what was read is too old.
        for _ in 0..6 {
            let (resolver, token) = (resolver.clone(), ApiKeyToken::clone(&token));
            let request = tokio::spawn(async move { outcome(&resolver.resolve(&token).await) });
            let answer = request.await;
            assert_eq!(answer.ok(), Some(right), "in {at:?}");
            sleep(MAX_STALENESS / 3).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn g2_a_source_that_panics_where_it_is_subscribed_to_or_asked_for_changes_tells_nothing() {
    for (subscribing, feed) in [
        (Subscribing::Panics, Feed::Live),
        (Subscribing::Feed, Feed::Panics),
    ] {
        let node = Node::new().await;
        let token = node.token().await;
        node.remote.set_subscribing(subscribing);
        node.remote.set_feed(feed);
        assert_eq!(verify_in_a_task(&node, &token).await.unwrap(), "good");
        node.remote.revoke_elsewhere(&token).await;
        sleep(MAX_STALENESS).await;
        assert_eq!(verify_in_a_task(&node, &token).await.unwrap(), "revoked");

        node.remote.set_subscribing(Subscribing::Feed);
        node.remote.set_feed(Feed::Live);
        sleep(MAX_STALENESS).await;
        assert_eq!(node.verify(&unknown_token()).await, "unknown");
        let token = node.cached_token().await;
        sleep(2 * MAX_STALENESS).await;
        assert_eq!(node.cached(&token), Some("good"), "it tells again");
    }
}

async fn verify_in_a_task(node: &Node, token: &str) -> Result<&'static str, JoinError> {
    let (store, token) = (node.store.clone(), token.to_owned());
    let task = tokio::spawn(async move { outcome(&store.verify(token).await) });
    task.await
}
