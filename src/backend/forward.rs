//! Methods that pass on to another backend.

/// Writes the methods of a backend that wraps another one, and passes on all that it doesn't do itself: to count,
/// to limit, or to fail in a test.
///
/// `all of source` are the methods of [`KeySource`](crate::KeySource), `all of backend` those of
/// [`ApiKeyBackend`](crate::ApiKeyBackend), and `but` leaves out those that the wrapper writes itself. So one that is
/// provided by the trait, and done in several steps there, isn't forgotten: a wrapper without `rotate` would compile,
/// and no rotation through it would be whole.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use tower_api_key::{
///     ApiKey, ApiKeyBackend, BackendError, KeySource, MemoryBackend, forward_to_backend,
/// };
///
/// struct Counted {
///     inner: MemoryBackend,
///     inserted: AtomicUsize,
/// }
///
/// impl KeySource for Counted {
///     forward_to_backend!(self => self.inner; all of source);
/// }
///
/// impl ApiKeyBackend for Counted {
///     async fn insert(&self, key: &ApiKey) -> Result<bool, BackendError> {
///         self.inserted.fetch_add(1, Ordering::Relaxed);
///         self.inner.insert(key).await
///     }
///
///     forward_to_backend!(self => self.inner; all of backend but insert);
/// }
/// ```
#[macro_export]
macro_rules! forward_to_backend {
    ($self:ident => $to:expr; all of source $(but $($but:ident),+)?) => {
        $crate::forward_to_backend!(@each $self ($to) [get_many subscribe] [$($($but)+)?]);
    };
    ($self:ident => $to:expr; all of backend $(but $($but:ident),+)?) => {
        $crate::forward_to_backend!(@each $self ($to) [
            insert insert_made_by update delete list_for_user touch get_by_id rotate
            revoke revoke_for_user list purge pepper_usage insert_grant get_grant get_grant_by_id
            claim revoke_grant revoke_grants_of_user list_grants warnings
            pepper_checks insert_pepper_check
        ] [$($($but)+)?]);
    };
    ($self:ident => $to:expr; $($method:ident),+) => {
        $crate::forward_to_backend!(@each $self ($to) [$($method)+] []);
    };
    (@each $self:ident $to:tt [$($method:ident)+] $but:tt) => {
        $($crate::forward_to_backend!(@$method $self $to $but);)+
    };
    (@get_many $self:ident $to:tt [get_many $($but:ident)*]) => {};
    (@subscribe $self:ident $to:tt [subscribe $($but:ident)*]) => {};
    (@insert $self:ident $to:tt [insert $($but:ident)*]) => {};
    (@insert_made_by $self:ident $to:tt [insert_made_by $($but:ident)*]) => {};
    (@update $self:ident $to:tt [update $($but:ident)*]) => {};
    (@delete $self:ident $to:tt [delete $($but:ident)*]) => {};
    (@list_for_user $self:ident $to:tt [list_for_user $($but:ident)*]) => {};
    (@touch $self:ident $to:tt [touch $($but:ident)*]) => {};
    (@get_by_id $self:ident $to:tt [get_by_id $($but:ident)*]) => {};
    (@rotate $self:ident $to:tt [rotate $($but:ident)*]) => {};
    (@revoke $self:ident $to:tt [revoke $($but:ident)*]) => {};
    (@revoke_for_user $self:ident $to:tt [revoke_for_user $($but:ident)*]) => {};
    (@list $self:ident $to:tt [list $($but:ident)*]) => {};
    (@purge $self:ident $to:tt [purge $($but:ident)*]) => {};
    (@pepper_usage $self:ident $to:tt [pepper_usage $($but:ident)*]) => {};
    (@insert_grant $self:ident $to:tt [insert_grant $($but:ident)*]) => {};
    (@get_grant $self:ident $to:tt [get_grant $($but:ident)*]) => {};
    (@get_grant_by_id $self:ident $to:tt [get_grant_by_id $($but:ident)*]) => {};
    (@claim $self:ident $to:tt [claim $($but:ident)*]) => {};
    (@revoke_grant $self:ident $to:tt [revoke_grant $($but:ident)*]) => {};
    (@revoke_grants_of_user $self:ident $to:tt [revoke_grants_of_user $($but:ident)*]) => {};
    (@list_grants $self:ident $to:tt [list_grants $($but:ident)*]) => {};
    (@pepper_checks $self:ident $to:tt [pepper_checks $($but:ident)*]) => {};
    (@insert_pepper_check $self:ident $to:tt [insert_pepper_check $($but:ident)*]) => {};
    (@warnings $self:ident $to:tt [warnings $($but:ident)*]) => {};
    (@$method:ident $self:ident $to:tt [$other:ident $($but:ident)*]) => {
        $crate::forward_to_backend!(@$method $self $to [$($but)*]);
    };
    (@get_many $self:ident ($to:expr) []) => {
        async fn get_many(&$self, keys: &[$crate::LookupKey]) -> ::std::result::Result<::std::vec::Vec<$crate::ApiKey>, $crate::BackendError> {
            $to.get_many(keys).await
        }
    };
    (@subscribe $self:ident ($to:expr) []) => {
        async fn subscribe(&$self, sink: $crate::ChangeSink) -> ::std::result::Result<$crate::Subscription, $crate::BackendError> {
            $to.subscribe(sink).await
        }
    };
    (@pepper_checks $self:ident ($to:expr) []) => {
        async fn pepper_checks(&$self) -> ::std::result::Result<::std::vec::Vec<$crate::PepperCheck>, $crate::BackendError> {
            $to.pepper_checks().await
        }
    };
    (@insert_pepper_check $self:ident ($to:expr) []) => {
        async fn insert_pepper_check(&$self, check: &$crate::PepperCheck) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.insert_pepper_check(check).await
        }
    };
    (@warnings $self:ident ($to:expr) []) => {
        async fn warnings(&$self) -> ::std::result::Result<::std::vec::Vec<::std::string::String>, $crate::BackendError> {
            $to.warnings().await
        }
    };
    (@insert $self:ident ($to:expr) []) => {
        async fn insert(&$self, key: &$crate::ApiKey) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.insert(key).await
        }
    };
    (@insert_made_by $self:ident ($to:expr) []) => {
        async fn insert_made_by(&$self, key: &$crate::ApiKey, maker: ($crate::KeyId, u64)) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.insert_made_by(key, maker).await
        }
    };
    (@update $self:ident ($to:expr) []) => {
        async fn update(&$self, key: &$crate::ApiKey, expected: u64) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.update(key, expected).await
        }
    };
    (@delete $self:ident ($to:expr) []) => {
        async fn delete(&$self, id: &$crate::KeyId) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.delete(id).await
        }
    };
    (@list_for_user $self:ident ($to:expr) []) => {
        async fn list_for_user(&$self, user_id: &str, page: &$crate::PageRequest) -> ::std::result::Result<::std::vec::Vec<$crate::ApiKey>, $crate::BackendError> {
            $to.list_for_user(user_id, page).await
        }
    };
    (@touch $self:ident ($to:expr) []) => {
        async fn touch(&$self, touches: &[$crate::Touch]) -> ::std::result::Result<(), $crate::BackendError> {
            $to.touch(touches).await
        }
    };
    (@get_by_id $self:ident ($to:expr) []) => {
        async fn get_by_id(&$self, ids: &[$crate::KeyId]) -> ::std::result::Result<::std::vec::Vec<$crate::ApiKey>, $crate::BackendError> {
            $to.get_by_id(ids).await
        }
    };
    (@rotate $self:ident ($to:expr) []) => {
        async fn rotate(&$self, successor: &$crate::ApiKey, old: &$crate::ApiKey, expected: u64) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.rotate(successor, old, expected).await
        }
    };
    (@revoke $self:ident ($to:expr) []) => {
        async fn revoke(&$self, id: &$crate::KeyId, at: ::std::time::SystemTime, reason: ::std::option::Option<&$crate::RevocationReason>) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.revoke(id, at, reason).await
        }
    };
    (@revoke_for_user $self:ident ($to:expr) []) => {
        async fn revoke_for_user(&$self, user_id: &str, at: ::std::time::SystemTime, reason: ::std::option::Option<&$crate::RevocationReason>, at_most: usize) -> ::std::result::Result<::std::vec::Vec<$crate::RevokedKey>, $crate::BackendError> {
            $to.revoke_for_user(user_id, at, reason, at_most).await
        }
    };
    (@list $self:ident ($to:expr) []) => {
        async fn list(&$self, filter: &$crate::KeyFilter, page: &$crate::PageRequest) -> ::std::result::Result<::std::vec::Vec<$crate::ApiKey>, $crate::BackendError> {
            $to.list(filter, page).await
        }
    };
    (@purge $self:ident ($to:expr) []) => {
        async fn purge(&$self, before: ::std::time::SystemTime, at_most: usize) -> ::std::result::Result<usize, $crate::BackendError> {
            $to.purge(before, at_most).await
        }
    };
    (@pepper_usage $self:ident ($to:expr) []) => {
        async fn pepper_usage(&$self, now: ::std::time::SystemTime) -> ::std::result::Result<::std::vec::Vec<$crate::PepperUsage>, $crate::BackendError> {
            $to.pepper_usage(now).await
        }
    };
    (@insert_grant $self:ident ($to:expr) []) => {
        async fn insert_grant(&$self, grant: &$crate::KeyGrant, limits: &$crate::GrantLimits) -> ::std::result::Result<$crate::GrantInsertion, $crate::BackendError> {
            $to.insert_grant(grant, limits).await
        }
    };
    (@get_grant $self:ident ($to:expr) []) => {
        async fn get_grant(&$self, hash: &$crate::ClaimHash) -> ::std::result::Result<::std::option::Option<$crate::KeyGrant>, $crate::BackendError> {
            $to.get_grant(hash).await
        }
    };
    (@get_grant_by_id $self:ident ($to:expr) []) => {
        async fn get_grant_by_id(&$self, id: &$crate::GrantId) -> ::std::result::Result<::std::option::Option<$crate::KeyGrant>, $crate::BackendError> {
            $to.get_grant_by_id(id).await
        }
    };
    (@claim $self:ident ($to:expr) []) => {
        async fn claim(&$self, grant: &$crate::GrantId, key: &$crate::ApiKey, maker: ::std::option::Option<($crate::KeyId, u64)>) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.claim(grant, key, maker).await
        }
    };
    (@revoke_grant $self:ident ($to:expr) []) => {
        async fn revoke_grant(&$self, grant: &$crate::GrantId, at: ::std::time::SystemTime) -> ::std::result::Result<bool, $crate::BackendError> {
            $to.revoke_grant(grant, at).await
        }
    };
    (@revoke_grants_of_user $self:ident ($to:expr) []) => {
        async fn revoke_grants_of_user(&$self, user_id: &str, at: ::std::time::SystemTime) -> ::std::result::Result<usize, $crate::BackendError> {
            $to.revoke_grants_of_user(user_id, at).await
        }
    };
    (@list_grants $self:ident ($to:expr) []) => {
        async fn list_grants(&$self, page: &$crate::GrantPageRequest) -> ::std::result::Result<::std::vec::Vec<$crate::KeyGrant>, $crate::BackendError> {
            $to.list_grants(page).await
        }
    };
}
pub(crate) use forward_to_backend;
