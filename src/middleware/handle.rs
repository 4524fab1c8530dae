//! What the layer leaves on a request, so that guards behind it answer as it does.

use std::{any::Any, sync::Arc};

use http::Response;

use super::{RejectionReason, ResponseForRejection, layer::Config, response::forget_body};
use crate::{context::LayerHandle, resolver::KeyResolver};

/// In the extensions of a request that was passed without a key: the layer was there.
#[derive(Clone)]
pub(crate) struct Anonymous(pub(crate) LayerHandle);

/// A handle whose rejections have the body that the layer's own have.
pub(super) fn handle<R, F, B>(config: &Arc<Config<R, F>>) -> LayerHandle
where
    R: KeyResolver,
    F: ResponseForRejection<B> + Send + Sync + 'static,
    B: 'static,
{
    LayerHandle {
        config: config.clone(),
        reject: reject_erased::<R, F, B>,
    }
}

/// The body of an erased response, of the type that the layer's own responses have.
type ErasedBody = Box<dyn Any>;

/// Takes a [`RejectionReason`], returns a `Response<ErasedBody>`.
fn reject_erased<R, F, B>(config: &(dyn Any + Send + Sync), reason: Box<dyn Any>) -> Box<dyn Any>
where
    R: KeyResolver,
    F: ResponseForRejection<B> + Send + Sync + 'static,
    B: 'static,
{
    let reason = reason
        .downcast()
        .map_or(RejectionReason::Misconfigured, |reason| *reason);
    let response = config.downcast_ref::<Config<R, F>>().map(|config| {
        config
            .reject(reason)
            .map(|body| Box::new(body) as ErasedBody)
    });
    Box::new(response)
}

/// What the layer behind `handle` answers to `reason`.
///
/// Where a body of another type is asked for than the layer answers with (a layer between the two
/// maps bodies), the response comes with its head and an empty body.
pub(crate) fn reject_like_the_layer<B>(
    handle: &LayerHandle,
    reason: RejectionReason,
) -> Option<Response<B>>
where
    B: Default + 'static,
{
    let response = (handle.reject)(&*handle.config, Box::new(reason))
        .downcast::<Option<Response<ErasedBody>>>()
        .ok()?;
    let (mut head, body) = (*response)?.into_parts();
    let body = body.downcast().map_or_else(
        |_| {
            forget_body(&mut head.headers);
            B::default()
        },
        |body| *body,
    );
    Some(Response::from_parts(head, body))
}
