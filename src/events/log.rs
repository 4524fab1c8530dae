//! The last events of each sort, for those who read them, each at their own pace.

use std::{
    array,
    collections::VecDeque,
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use super::{
    Event,
    kind::{EventKind, MissedEvents, Sort},
};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// Where events go. While nobody reads, nothing is kept.
pub(super) struct Log {
    /// How many of each sort are kept.
    capacity: usize,
    /// Asked on every request that is turned away, without the lock.
    readers: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: [Kept; Sort::COUNT],
    /// That of the last event.
    number: u64,
    waiting: Vec<(u64, Waker)>,
    /// How many readers there have been.
    readers: u64,
    is_closed: bool,
}

/// The last events of one sort.
#[derive(Default)]
struct Kept {
    events: VecDeque<Event>,
    /// How many there were before them.
    gone: u64,
    /// When the last of these happened, and its number.
    last_gone: Option<(SystemTime, u64)>,
}

impl Log {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            readers: AtomicUsize::new(0),
            state: Mutex::default(),
        })
    }

    /// Whether anybody reads.
    pub(super) fn is_read(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Tells those who read, and takes no longer where they are slow.
    pub(super) fn push(&self, mut event: Event) {
        let waiting = {
            let mut state = self.state();
            if state.is_closed || !self.is_read() {
                return;
            }
            state.number += 1;
            event.number = state.number;
            state.kept[event.sort() as usize].push(event, self.capacity);
            mem::take(&mut state.waiting)
        };
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// The number of the last event.
    pub(super) fn last_number(&self) -> u64 {
        self.state().number
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = self.state();
            state.is_closed = true;
            mem::take(&mut state.waiting)
        };
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// Somebody who hears of everything from now on.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        let mut state = self.state();
        self.readers.fetch_add(1, Ordering::Relaxed);
        state.readers += 1;
        Reader {
            log: self.clone(),
            id: state.readers,
            next: array::from_fn(|sort| state.kept[sort].end()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, event: Event, capacity: usize) {
        if self.events.len() >= capacity
            && let Some(oldest) = self.events.pop_front()
        {
            self.last_gone = Some((oldest.at, oldest.number));
            self.gone += 1;
        }
        self.events.push_back(event);
    }

    fn end(&self) -> u64 {
        self.gone + self.events.len() as u64
    }

    /// The event at a place, or nothing where it is gone, or hasn't come.
    fn at(&self, place: u64) -> Option<&Event> {
        let index = place.checked_sub(self.gone)?;
        self.events.get(usize::try_from(index).ok()?)
    }

    /// The number of what comes at a place: an event, or that some are missing.
    fn number_at(&self, place: u64) -> Option<u64> {
        match self.last_gone {
            Some((_, number)) if place < self.gone => Some(number),
            _ => self.at(place).map(|event| event.number),
        }
    }

    fn forget(&mut self) {
        self.gone = self.end();
        self.last_gone = None;
        self.events = VecDeque::new();
    }
}

impl State {
    /// What comes first of what a reader hasn't had.
    fn take(&self, next: &mut [u64; Sort::COUNT]) -> Option<Event> {
        let numbers = self.kept.iter().zip(&*next).enumerate();
        let (_, sort) = numbers
            .filter_map(|(sort, (kept, place))| Some((kept.number_at(*place)?, sort)))
            .min()?;
        let (kept, place) = (&self.kept[sort], &mut next[sort]);
        if let Some((at, number)) = kept.last_gone
            && *place < kept.gone
        {
            let missed = kept.gone - *place;
            *place = kept.gone;
            let kind = EventKind::Missed(MissedEvents::of(sort, missed));
            return Some(Event {
                at,
                number,
                ..Event::of(kind)
            });
        }
        let event = kept.at(*place)?.clone();
        *place += 1;
        Some(event)
    }

    /// Gives back who was to be woken for this reader until now.
    fn wait(&mut self, reader: u64, waker: Option<Waker>) -> Option<(u64, Waker)> {
        let known = self.waiting.iter().position(|(id, _)| *id == reader);
        let before = known.map(|index| self.waiting.swap_remove(index));
        self.waiting.extend(waker.map(|waker| (reader, waker)));
        before
    }
}

impl MissedEvents {
    fn of(sort: usize, missed: u64) -> Self {
        let of = |other: Sort| if sort == other as usize { missed } else { 0 };
        Self {
            inactive: of(Sort::Inactive),
            changes: of(Sort::Change),
            repeatable: of(Sort::Repeatable),
            rejections: of(Sort::Rejection),
        }
    }
}

/// Somebody who reads.
pub(super) struct Reader {
    log: Arc<Log>,
    id: u64,
    next: [u64; Sort::COUNT],
}

impl Reader {
    /// The next event; nothing where none comes any more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let waker = cx.waker().clone();
        let mut state = self.log.state();
        match state.take(&mut self.next) {
            Some(event) => Poll::Ready(Some(event)),
            None if state.is_closed => Poll::Ready(None),
            None => {
                let before = state.wait(self.id, Some(waker));
                // A waker may be the last that holds a task, with readers in it: not under the lock.
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }

    /// Those that have come, so many at the most.
    pub(super) fn take(&mut self, at_most: usize) -> Vec<Event> {
        let state = self.log.state();
        let events = std::iter::from_fn(|| state.take(&mut self.next));
        events.take(at_most).collect()
    }
}

/// With the last one goes what was kept for it.
impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.log.state();
        let waiting = state.wait(self.id, None);
        if self.log.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.kept.iter_mut().for_each(Kept::forget);
        }
        drop(state);
        drop(waiting);
    }
}
