//! What has happened, for whoever has to find out why something was wrong.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

pub struct Timeline {
    start: Instant,
    lines: Mutex<VecDeque<String>>,
}

const KEPT: usize = 60;

impl Timeline {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            lines: Mutex::default(),
        }
    }

    pub fn note(&self, what: impl std::fmt::Display) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let after = self.start.elapsed().as_secs_f64();
        lines.push_back(format!("{after:9.4} {what}"));
        if lines.len() > KEPT {
            lines.pop_front();
        }
    }

    pub fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}
