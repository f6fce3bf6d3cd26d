//! A value that one task sets and others wait for.

use std::sync::{Mutex, PoisonError};

use async_std::channel;

/// The latest value of something, and a way to wait for the next one.
#[derive(Debug)]
pub struct Watch<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    /// Closing it wakes every waiter at once. Each value has its own, and it is
    /// taken under the same lock as the value, so no change is missed.
    wake: (channel::Sender<()>, channel::Receiver<()>),
}

// === impl Watch ===

impl<T: Clone> Watch<T> {
    pub fn new(value: T) -> Self {
        let wake = channel::bounded(1);
        Self {
            state: Mutex::new(State { value, wake }),
        }
    }

    pub fn get(&self) -> T {
        self.lock().value.clone()
    }

    /// Changes the value in place and wakes the waiters if `change` says that it did.
    pub fn update(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut state = self.lock();
        if change(&mut state.value) {
            state.wake.0.close();
            state.wake = channel::bounded(1);
        }
    }

    pub fn set(&self, value: T) {
        self.update(|held| {
            *held = value;
            true
        });
    }

    /// Resolves to what `pick` finds, as soon as it finds something.
    pub async fn wait<P>(&self, mut pick: impl FnMut(&T) -> Option<P>) -> P {
        loop {
            let changed = {
                let state = self.lock();
                if let Some(picked) = pick(&state.value) {
                    return picked;
                }
                state.wake.1.clone()
            };
            let _ = changed.recv().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shutdown::spawn_detached;

    #[async_std::test]
    async fn a_waiter_sees_the_value_set_before_and_after_it_came() {
        let watch = Arc::new(Watch::new(1));
        assert_eq!(
            watch.wait(|n| (*n == 1).then_some("at once")).await,
            "at once"
        );
        let setter = Arc::clone(&watch);
        spawn_detached(async move {
            setter.set(2);
            setter.set(3);
        });
        watch.wait(|n| (*n == 3).then_some(())).await;
        assert_eq!(watch.get(), 3);
    }
}
