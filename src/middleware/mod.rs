//! The layer: takes the token from a request, asks the resolver, and lets the request in or answers
//! it.

mod answers;
mod credentials;
mod future;
mod layer;
mod rejection;
mod response;
mod service;

pub(crate) use self::{
    answers::{Anonymous, reject_like_the_layer},
    rejection::Realm,
    response::{forget_body, mark},
};
pub use self::{
    credentials::CredentialHeader,
    future::ResponseFuture,
    layer::ApiKeyLayer,
    rejection::{Rejection, RejectionReason},
    response::{GrpcResponse, ProblemResponse, ResponseForRejection},
    service::ApiKeyService,
};
