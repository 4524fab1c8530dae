//! The holder of a key, and all that a service lets them do with it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tower_api_key::{
    ApiKeyStore, AuthContext, GrantPageRequest, HandoffToken, IssuedKey, KeyFilter, KeyId,
    KeyUpdate, NewApiKey, PageRequest, Scopes, StoreError, VerifyError,
};

use crate::support::id_of;

const HOUR: Duration = Duration::from_secs(60 * 60);
/// What one user may have by default.
const GRANTS: usize = 100;

/// Creates keys with the holder's key, directly and by claiming grants.
pub(crate) const CREATIONS: &[Operation] = &[Operation::Create, Operation::Claim];

/// Changes the holder's key all the time: each change raises its version.
pub(crate) const CHANGES: &[Operation] = &[
    Operation::RenameOwn,
    Operation::RotateOwn,
    Operation::RenameOwn,
    Operation::CancelOwnRotation,
];

/// Every operation that a service offers to holders.
pub(crate) const EVERYTHING: &[Operation] = &[
    Operation::Create,
    Operation::CreateGrant,
    Operation::Claim,
    Operation::PreviewClaim,
    Operation::GrantForToken,
    Operation::ListGrants,
    Operation::RevokeGrant,
    Operation::RotateChild,
    Operation::FinishChildRotation,
    Operation::RotateOwn,
    Operation::CancelOwnRotation,
    Operation::ShowRotation,
    Operation::RenameOwn,
    Operation::RenameChild,
    Operation::DisableChild,
    Operation::EnableChild,
    Operation::RevokeChild,
    Operation::DeleteChild,
    Operation::Get,
    Operation::ListForUser,
    Operation::ListChildren,
    Operation::VerifyFresh,
    Operation::VerifyUnknown,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    CreateGrant,
    Claim,
    PreviewClaim,
    GrantForToken,
    ListGrants,
    RevokeGrant,
    RotateChild,
    FinishChildRotation,
    RotateOwn,
    CancelOwnRotation,
    ShowRotation,
    RenameOwn,
    RenameChild,
    DisableChild,
    EnableChild,
    RevokeChild,
    DeleteChild,
    Get,
    ListForUser,
    ListChildren,
    VerifyFresh,
    VerifyUnknown,
}

impl Operation {
    /// Whether it gives the holder a key, or a grant, that an inactive key must not give.
    pub(crate) fn delegates(self) -> bool {
        matches!(
            self,
            Self::Create | Self::CreateGrant | Self::Claim | Self::RotateChild | Self::RotateOwn
        )
    }
}

/// A user with one key, which they flood the store with.
pub(crate) struct Holder {
    pub(crate) user: String,
    pub(crate) key: KeyId,
    pub(crate) token: String,
    /// Those that nobody has claimed yet.
    grants: Mutex<Vec<HandoffToken>>,
    /// A key for each task.
    children: Vec<KeyId>,
}

impl Holder {
    /// Creates the key of `user`, as many grants as one user may have, and a key for each task.
    pub(crate) async fn new(store: &ApiKeyStore, user: String, tasks: usize) -> Self {
        let scopes = Scopes::of(["notes:*", "keys:manage"]).unwrap();
        let issued = store.create(NewApiKey::for_user(&user, scopes)).await;
        let token = issued.unwrap().token().expose().to_owned();
        let caller = store.verify(&token).await.unwrap();
        let mut grants = Vec::new();
        for _ in 0..GRANTS {
            let grant = store.hand_off_as(&caller, child_of(&user), HOUR).await;
            grants.push(grant.unwrap().into_parts().0);
        }
        let mut children = Vec::new();
        for _ in 0..tasks {
            let child = store.create_as(&caller, child_of(&user)).await.unwrap();
            children.push(child.key().id);
        }
        Self {
            key: id_of(&token),
            user,
            token,
            grants: Mutex::new(grants),
            children,
        }
    }

    pub(crate) fn take_grant(&self) -> Option<HandoffToken> {
        self.grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn add_grant(&self, token: HandoffToken) {
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants.push(token);
    }
}

fn child_of(user: &str) -> NewApiKey {
    NewApiKey::for_user(user, Scopes::of(["notes:read"]).unwrap())
}

/// One of the tasks of the holder.
pub(crate) struct Task {
    store: ApiKeyStore,
    caller: AuthContext,
    holder: Arc<Holder>,
    number: usize,
    calls: usize,
    children: Vec<KeyId>,
}

impl Task {
    pub(crate) fn new(
        store: ApiKeyStore,
        caller: AuthContext,
        holder: Arc<Holder>,
        number: usize,
    ) -> Self {
        Self {
            store,
            caller,
            number,
            calls: 0,
            children: vec![holder.children[number]],
            holder,
        }
    }

    /// Returns the next operation: every task begins with another one.
    pub(crate) fn next(&mut self, operations: &[Operation]) -> Operation {
        self.calls += 1;
        operations[(self.number + self.calls) % operations.len()]
    }

    pub(crate) async fn call(&mut self, operation: Operation) -> Result<(), StoreError> {
        let (store, caller) = (self.store.clone(), self.caller.clone());
        let (holder, own) = (self.holder.clone(), self.holder.key);
        let child = self.children.last().copied().unwrap_or(own);
        let name = format!("name {}", self.calls);
        match operation {
            Operation::Create => {
                let issued = store.create_as(&caller, child_of(&holder.user)).await?;
                self.add_child(&issued);
            }
            Operation::CreateGrant => {
                let grant = store.hand_off_as(&caller, child_of(&holder.user), HOUR);
                holder.add_grant(grant.await?.into_parts().0);
            }
            Operation::Claim => match holder.take_grant() {
                Some(token) => self.add_child(&store.claim(&token).await?),
                None => Box::pin(self.call(Operation::Create)).await?,
            },
            Operation::PreviewClaim => {
                let token = self.some_grant();
                store.claimable(&token).await?;
            }
            Operation::GrantForToken => drop(store.grant_of(&self.some_grant()).await?),
            Operation::ListGrants => {
                let request = GrantPageRequest::new().user(&holder.user).pending();
                store.grants(request).await?;
            }
            Operation::RevokeGrant => {
                let grant = store.grant_of(&self.some_grant()).await?;
                if let Some(grant) = grant.filter(|_| self.calls.is_multiple_of(4)) {
                    store.revoke_grant(&grant.id).await?;
                }
            }
            Operation::RotateChild => {
                let issued = store.rotate_as(&caller, &child, HOUR).await?;
                self.add_child(&issued);
            }
            Operation::FinishChildRotation => {
                if child != own {
                    store.finish_rotation(&child).await?;
                }
            }
            Operation::RotateOwn => {
                let issued = store.rotate_as(&caller, &own, HOUR).await?;
                self.add_child(&issued);
            }
            Operation::CancelOwnRotation => store.cancel_rotation(&own).await?,
            Operation::ShowRotation => drop(store.rotation(&own).await?),
            Operation::RenameOwn => drop(store.update(&own, KeyUpdate::new().name(name)).await?),
            Operation::RenameChild => {
                store.update(&child, KeyUpdate::new().name(name)).await?;
            }
            Operation::DisableChild => {
                if child != own {
                    store.disable(&child).await?;
                }
            }
            Operation::EnableChild => {
                if child != own {
                    store.enable(&child).await?;
                }
            }
            Operation::RevokeChild => {
                if child != own {
                    store.revoke(&child).await?;
                    self.children.pop();
                }
            }
            Operation::DeleteChild => {
                if child != own {
                    store.delete(&child).await?;
                    self.children.pop();
                }
            }
            Operation::Get => drop(store.get(&own).await?),
            Operation::ListForUser => {
                store
                    .list_for_user(&holder.user, PageRequest::new())
                    .await?;
            }
            Operation::ListChildren => {
                let filter = KeyFilter::new().made_by(own);
                store.list(filter, PageRequest::new()).await?;
            }
            Operation::VerifyFresh => verified(store.verify_fresh(&holder.token).await)?,
            Operation::VerifyUnknown => {
                let token = unknown_token(self.number, self.calls);
                verified(store.verify(&token).await)?;
            }
        }
        Ok(())
    }

    fn add_child(&mut self, issued: &IssuedKey) {
        self.children.push(issued.key().id);
    }

    /// Returns a grant that stays where it is, or a token that nobody has made.
    fn some_grant(&self) -> HandoffToken {
        let made_up = || HandoffToken::from_bytes([7; HandoffToken::LEN]);
        let grants = &self.holder.grants;
        let grants = grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants.first().cloned().unwrap_or_else(made_up)
    }
}

/// A rejection is an answer; only an outage is an error.
fn verified(result: Result<AuthContext, VerifyError>) -> Result<(), StoreError> {
    match result {
        Err(VerifyError::Unavailable(error)) => Err(StoreError::Unavailable(error)),
        _ => Ok(()),
    }
}

/// Returns a well-formed token with an id that isn't cached.
pub(crate) fn unknown_token(task: usize, call: usize) -> String {
    format!("pk.key_{task:08}{call:024}.{}", "b".repeat(43))
}
