//! lapin on async-std's own executor.
//!
//! lapin's default runtime would bring a second executor with its own threads;
//! on this one it is measurably faster (docs/decisions) and shares our threads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_rs::traits::Executor;
use async_rs::util::{RuntimeParts, Task, TaskImpl};
use async_rs::{AsyncIO, Runtime};
use async_std::task::JoinHandle;
use async_trait::async_trait;

use crate::shutdown;

#[derive(Debug, Clone, Copy)]
pub(super) struct AsyncStd;

/// A task on it. Empty once it was cancelled or let go.
pub(super) struct Handle<T>(Option<JoinHandle<T>>);

pub(super) type AsyncStdRuntime = Runtime<RuntimeParts<AsyncStd, AsyncIO>>;

pub(super) fn runtime() -> AsyncStdRuntime {
    Runtime::new(RuntimeParts::new(AsyncStd, AsyncIO))
}

// === impl AsyncStd ===

impl Executor for AsyncStd {
    type Task<T: Send + 'static> = Handle<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        async_std::task::block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Handle<T>> {
        Handle(Some(shutdown::spawn(future))).into()
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Handle<T>> {
        Handle(Some(shutdown::spawn(shutdown::unblock(work)))).into()
    }
}

// === impl Handle ===

impl<T: Send + 'static> Future for Handle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.0.as_mut() {
            Some(handle) => Pin::new(handle).poll(cx),
            // Cancelled: there is nothing to wait for, and nobody waits.
            None => Poll::Pending,
        }
    }
}

#[async_trait]
impl<T: Send + 'static> TaskImpl for Handle<T> {
    async fn cancel(&mut self) -> Option<T> {
        self.0.take()?.cancel().await
    }

    fn detach(&mut self) {
        self.0.take();
    }
}
