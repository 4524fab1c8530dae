//! How a layer turns requests away, and how guards behind it do the same.
//!
//! A guard knows neither the type that makes the layer's responses nor, with a layer in between that
//! maps bodies, the type of their body. So the layer leaves a function on the request that knows
//! both, and what it returns is taken apart here.

use std::{
    any::Any,
    sync::{Arc, LazyLock},
};

use http::Response;

use super::{
    ProblemResponse, Realm, Rejection, RejectionReason, ResponseForRejection,
    response::{forget_body, mark},
};
use crate::{
    context::{HeldAnswers, LayerHandle},
    trace,
};

/// What a layer needs to turn a request away.
pub(super) struct Answers<F> {
    pub(super) response: Arc<F>,
    pub(super) realm: Realm,
    /// The same answers, for good: where nothing was set.
    same: Option<&'static (dyn Any + Send + Sync)>,
}

impl Default for Answers<ProblemResponse> {
    fn default() -> Self {
        static SAME: LazyLock<Answers<ProblemResponse>> =
            LazyLock::new(|| Answers::new(Arc::new(ProblemResponse), Realm::default()));
        Self {
            same: Some(&*SAME),
            ..Self::new(SAME.response.clone(), SAME.realm.clone())
        }
    }
}

impl<F> Answers<F> {
    pub(super) fn new(response: Arc<F>, realm: Realm) -> Self {
        Self {
            response,
            realm,
            same: None,
        }
    }

    /// The response to a request that is turned away, with the rejection in its extensions.
    pub(super) fn reject<B>(&self, reason: RejectionReason) -> Response<B>
    where
        F: ResponseForRejection<B>,
    {
        let rejection = Rejection::in_realm(reason, self.realm.clone());
        let outage = match rejection.reason() {
            RejectionReason::Unavailable(outage) => Some(outage),
            _ => None,
        };
        trace::rejected(rejection.code(), outage);
        let mut response = self.response.response_for_rejection(rejection.clone());
        mark(&mut response, rejection);
        response
    }
}

/// In the extensions of a request that was passed without a key: the layer was there.
#[derive(Clone)]
pub(crate) struct Anonymous(pub(crate) LayerHandle);

/// A handle on `answers`, for a layer whose responses have the body `B`.
pub(super) fn handle<F, B>(answers: &Arc<Answers<F>>) -> LayerHandle
where
    F: ResponseForRejection<B> + Send + Sync + 'static,
    B: 'static,
{
    let held = match answers.same {
        Some(same) => HeldAnswers::Static(same),
        None => HeldAnswers::Shared(answers.clone()),
    };
    LayerHandle::new(held, reject_erased::<F, B>)
}

/// A response whose body is of the type that the layer's responses have.
type ErasedResponse = Response<Box<dyn Any>>;

/// Takes a [`RejectionReason`], returns an [`ErasedResponse`].
fn reject_erased<F, B>(answers: &(dyn Any + Send + Sync), reason: Box<dyn Any>) -> Box<dyn Any>
where
    F: ResponseForRejection<B> + Send + Sync + 'static,
    B: 'static,
{
    let answers: &Answers<F> = answers.downcast_ref().expect("made by `handle`");
    let reason = *reason.downcast().expect("made by `reject_like_the_layer`");
    let response: ErasedResponse = answers
        .reject(reason)
        .map(|body| Box::new(body) as Box<dyn Any>);
    Box::new(response)
}

/// What the layer behind `handle` answers to `reason`.
///
/// Where a body of another type is asked for than the layer answers with, the response comes with
/// its head and an empty body.
pub(crate) fn reject_like_the_layer<B>(handle: &LayerHandle, reason: RejectionReason) -> Response<B>
where
    B: Default + 'static,
{
    let response = handle.reject(Box::new(reason));
    let response: Box<ErasedResponse> = response.downcast().expect("made by `reject_erased`");
    let (mut head, body) = response.into_parts();
    let body = body.downcast().map_or_else(
        |_| {
            forget_body(&mut head.headers);
            B::default()
        },
        |body| *body,
    );
    Response::from_parts(head, body)
}
