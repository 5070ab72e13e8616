//! Xenstore client: the control plane's way to the toolstack and to other domains.
//!
//! Callers are async functions that the run loop polls; no call here ever blocks. When the store's event channel
//! fires, the run loop calls [`Store::pump`] and polls again; wakers are honoured, and `Waker::noop()` does as well.
//!
//! | file | is |
//! |---|---|
//! | [`byte_ring`] | bytes through shared memory, one direction; the PV console uses it too |
//! | [`ring`] | the page shared with xenstored |
//! | `wire` | messages as bytes |
//! | `replies` | what the payloads of replies say |
//! | `client` | slots of requests, outbox, state of the connection |
//! | `events` | bounded queue of watch events |
//! | `transaction` | [`Transaction`] and its retry |
//!
//! Protocol: docs/misc/xenstore.txt, docs/misc/xenstore-ring.txt, xen/include/public/io/xs_wire.h.
//!
//! A path that does not begin with `/` is relative to `/local/domain/<this domain>/`. A future once polled has made
//! its request: dropping it does not take the request back, only the interest in the reply.

pub mod byte_ring;
mod client;
mod error;
mod events;
mod replies;
pub mod ring;
mod transaction;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use error::StoreError;
pub use events::WatchEvent;
pub use ring::Ring;
pub use transaction::Transaction;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use client::Connection;
use core::cell::RefCell;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};
use wire::{Message, Operation, RequestId, TransactionId};

/// Longest list of children that [`Store::directory`] takes, in bytes.
const DIRECTORY_BYTES_MAX: usize = 64 * 1024;
/// Times [`Store::directory`] starts over because a long list changed while it came in parts.
const DIRECTORY_ATTEMPTS_MAX: usize = 8;

/// A handle to xenstore. Clones share one connection.
#[derive(Clone)]
pub struct Store(Rc<Shared>);

struct Shared {
    connection: RefCell<Connection>,
    notify: Box<dyn Fn()>,
}

impl Store {
    /// A client on `ring`; `notify` sends an event on the store's channel. Call [`Self::reset_watches`] first:
    /// whoever ran in this domain before may have left watches.
    #[must_use]
    pub fn new(ring: Ring, notify: impl Fn() + 'static) -> Self {
        Self(Rc::new(Shared { connection: RefCell::new(Connection::new(ring)), notify: Box::new(notify) }))
    }

    /// Moves what the ring has and takes, completes replies, queues events. To be called after the store's
    /// event channel fired, its pending bit cleared before. Does a bounded amount of work: whatever more the
    /// server has, it sends another event for.
    pub fn pump(&self) {
        self.with(Connection::pump);
    }

    /// The value of a node, which may be empty.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without the node; [`StoreError::Invalid`] for a value that is not UTF-8.
    pub async fn read(&self, path: &str) -> Result<String, StoreError> {
        self.read_within(TransactionId::NONE, path).await
    }

    /// The values of several nodes, none where there is no node: one round trip for all of them. Not all of one moment.
    ///
    /// # Errors
    /// As [`Self::read`], but for nodes that are not there.
    pub async fn read_together(&self, paths: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        let mut replies = Vec::with_capacity(paths.len());
        for path in paths {
            replies.push(self.submit(&Message::about_path(Operation::Read, TransactionId::NONE, path)?)?);
        }
        let mut values = Vec::with_capacity(paths.len());
        for reply in replies {
            values.push(match reply.await {
                Err(StoreError::NotFound) => None,
                other => Some(replies::value(other?)?),
            });
        }
        Ok(values)
    }

    /// Sets the value of a node; makes it, and its parents, when there is none.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] when path and value do not fit one message.
    pub async fn write(&self, path: &str, value: &str) -> Result<(), StoreError> {
        self.write_within(TransactionId::NONE, path, value).await
    }

    /// Removes a node and everything below. That there is no such node is fine, as long as its parent exists.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without the parent.
    pub async fn remove(&self, path: &str) -> Result<(), StoreError> {
        self.remove_within(TransactionId::NONE, path).await
    }

    /// Names of a node's children, however many messages they take.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without the node; [`StoreError::TooLong`] above 64 KiB of names;
    /// [`StoreError::Again`] when a list that needs several messages changes all the time.
    pub async fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        self.directory_within(TransactionId::NONE, path).await
    }

    /// Asks for an event with `token` for each change of the node or of anything below it, and for one at once.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when path and token are watched already. The node need not exist.
    pub async fn watch(&self, path: &str, token: &str) -> Result<(), StoreError> {
        self.call(&Message::watch(Operation::Watch, path, token)?).await.map(drop)
    }

    /// Ends all watches, all transactions, and drops all events.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] from an old server (node `control/platform-feature-xs_reset_watches`).
    pub async fn reset_watches(&self) -> Result<(), StoreError> {
        self.call(&Message::reset_watches()).await?;
        self.with(|connection| connection.events().clear());
        Ok(())
    }

    /// The next watch event. For one task: of several that wait, one gets it.
    ///
    /// # Errors
    /// [`StoreError::Disconnected`] when there will be none any more.
    pub async fn next_event(&self) -> Result<WatchEvent, StoreError> {
        poll_fn(|context| self.with(|connection| connection.poll_event(context.waker()))).await
    }

    async fn read_within(&self, transaction: TransactionId, path: &str) -> Result<String, StoreError> {
        replies::value(self.call(&Message::about_path(Operation::Read, transaction, path)?).await?)
    }

    async fn write_within(
        &self,
        transaction: TransactionId,
        path: &str,
        value: &str,
    ) -> Result<(), StoreError> {
        self.call(&Message::write(transaction, path, value.as_bytes())?).await.map(drop)
    }

    async fn remove_within(&self, transaction: TransactionId, path: &str) -> Result<(), StoreError> {
        self.call(&Message::about_path(Operation::Remove, transaction, path)?).await.map(drop)
    }

    async fn directory_within(
        &self,
        transaction: TransactionId,
        path: &str,
    ) -> Result<Vec<String>, StoreError> {
        match self.call(&Message::about_path(Operation::Directory, transaction, path)?).await {
            Ok(payload) => replies::names(&payload),
            Err(StoreError::TooLong) => self.directory_in_parts(transaction, path).await,
            Err(error) => Err(error),
        }
    }

    /// The list of children in as many messages as it takes, all of one generation of the list.
    async fn directory_in_parts(
        &self,
        transaction: TransactionId,
        path: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut generation = Vec::new();
        let mut list = Vec::new();
        let mut attempts = 0;
        while list.len() <= DIRECTORY_BYTES_MAX {
            let payload = self.call(&Message::directory_part(transaction, path, list.len())?).await?;
            let part = replies::part(&payload)?;
            if !list.is_empty() && part.generation != generation {
                attempts += 1;
                if attempts >= DIRECTORY_ATTEMPTS_MAX {
                    return Err(StoreError::Again);
                }
                list.clear();
                continue;
            }
            generation = part.generation.to_vec();
            list.extend_from_slice(part.names);
            if part.last {
                return replies::names(&list);
            }
        }
        Err(StoreError::TooLong)
    }

    async fn call(&self, message: &Message) -> Result<Vec<u8>, StoreError> {
        self.submit(message)?.await
    }

    fn submit(&self, message: &Message) -> Result<Reply, StoreError> {
        let request = self.with(|connection| connection.submit(message))?;
        Ok(Reply { store: self.clone(), request })
    }

    fn submit_unattended(&self, message: &Message) {
        self.with(|connection| connection.submit_unattended(message));
    }

    /// Does `work` on the connection, then what came of it, which may well call in here again.
    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        let (result, effects) = {
            let mut connection = self.0.connection.borrow_mut();
            (work(&mut connection), connection.take_effects())
        };
        if effects.notify {
            (self.0.notify)();
        }
        effects.wake.into_iter().for_each(core::task::Waker::wake);
        drop(effects.retired);
        result
    }
}

/// A reply on its way. Dropping it leaves the request to its fate, and no trace.
struct Reply {
    store: Store,
    request: RequestId,
}

impl Future for Reply {
    type Output = Result<Vec<u8>, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.store.with(|connection| connection.poll_reply(self.request, context.waker()))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.store.with(|connection| connection.abandon(self.request));
    }
}
