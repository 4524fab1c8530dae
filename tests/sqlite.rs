//! Keys in a SQLite file: what is opened and what is refused, what is read and written, and what other
//! connections and processes learn of it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod support;

mod sqlite {
    mod records;
}
