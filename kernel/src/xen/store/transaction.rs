//! Several reads and writes that happen all at once or not at all (xenstore.txt, "Transactions").
//!
//! A [`Transaction`] not committed is aborted when it is dropped. Neighbours: [`super::Store`] makes them.

use super::error::StoreError;
use super::wire::{Message, TransactionId};
use super::{Store, replies};
use alloc::string::String;
use alloc::vec::Vec;

/// Times [`Store::transaction`] tries before it lets [`StoreError::Again`] through.
const ATTEMPTS_MAX: usize = 16;

/// An open transaction. Xenstored allows a domain ten of them at a time.
pub struct Transaction {
    store: Store,
    id: TransactionId,
    ended: bool,
}

impl Store {
    /// Begins a transaction. [`Store::transaction`] is the one that starts over by itself.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Quota`] when too many are open.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let payload = self.call(&Message::transaction_start()).await?;
        Ok(Transaction { store: self.clone(), id: replies::transaction(&payload)?, ended: false })
    }

    /// Runs `body` in a transaction and commits, again from the start as long as somebody else interferes (a
    /// bounded number of times). When `body` fails, nothing of it happens.
    ///
    /// # Errors
    /// What `body` fails with, or the commit.
    pub async fn transaction<T>(
        &self,
        body: impl AsyncFn(&Transaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let transaction = self.begin().await?;
            let outcome = match body(&transaction).await {
                Ok(result) => transaction.commit().await.map(|()| result),
                Err(error) => Err(error),
            };
            if outcome.as_ref().err() != Some(&StoreError::Again) {
                return outcome;
            }
        }
        log::warn!("xenstore: a transaction met a conflict {ATTEMPTS_MAX} times");
        Err(StoreError::Again)
    }
}

impl Transaction {
    /// As [`Store::read`], inside the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn read(&self, path: &str) -> Result<String, StoreError> {
        self.store.read_within(self.id, path).await
    }

    /// As [`Store::write`], inside the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn write(&self, path: &str, value: &str) -> Result<(), StoreError> {
        self.store.write_within(self.id, path, value).await
    }

    /// As [`Store::remove`], inside the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn remove(&self, path: &str) -> Result<(), StoreError> {
        self.store.remove_within(self.id, path).await
    }

    /// As [`Store::directory`], inside the transaction.
    ///
    /// # Errors
    /// As there.
    pub async fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        self.store.directory_within(self.id, path).await
    }

    /// Makes it all happen.
    ///
    /// # Errors
    /// [`StoreError::Again`] when somebody else changed what this transaction touched: nothing has happened then.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let reply = self.store.submit(&Message::commit(self.id))?;
        // From here on the server will end it, even when nobody waits for its answer.
        self.ended = true;
        reply.await.map(drop)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            self.store.submit_unattended(&Message::abort(self.id));
        }
    }
}
