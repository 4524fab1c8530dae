//! What happened to keys, told to whoever wants to hear it: bounded, and without secrets.

mod emitter;
mod event;
mod kind;
mod log;
mod recorder;
mod stream;

pub(crate) use self::emitter::{Emitter, EmitterSettings};
pub use self::{
    event::Event,
    kind::{EventKind, MissedEvents},
    recorder::EventRecorder,
    stream::Events,
};
