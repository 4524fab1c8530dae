//! A shared source or backend is one, too.

use std::sync::Arc;

use super::{ApiKeyBackend, KeySource, forward::forward_to_backend};

impl<S: KeySource> KeySource for Arc<S> {
    forward_to_backend!(self => (**self); all of source);
}

impl<B: ApiKeyBackend> ApiKeyBackend for Arc<B> {
    forward_to_backend!(self => (**self); all of backend);
}
