//! A store that dies at a chosen commit, as a process does that is killed there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use vault_core::Error;
use vault_core::error::Dependency;
use vault_core::store::{BoxFuture, Row, Scanned, Store, Table, Write};

const DEAD: Error = Error::unavailable(Dependency::Store, "the test killed it");

/// Passes everything on until it dies; from then on answers nothing.
#[derive(Debug)]
pub(crate) struct Mortal {
    inner: Arc<dyn Store>,
    /// Commits left to live.
    left: AtomicI64,
    /// Whether the commit at which it dies is carried out, and only its answer is lost.
    carried_out: bool,
}

impl Mortal {
    pub(crate) fn new(inner: Arc<dyn Store>, carried_out: bool) -> Self {
        Self { inner, left: AtomicI64::new(i64::MAX), carried_out }
    }

    /// From now on: so many commits, then death.
    pub(crate) fn live_for(&self, commits: i64) {
        self.left.store(commits, Ordering::SeqCst);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

impl Store for Mortal {
    fn get<'a>(&'a self, table: Table, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Row>, Error>> {
        if self.is_dead() { Box::pin(async { Err(DEAD) }) } else { self.inner.get(table, key) }
    }

    fn scan<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Scanned>, Error>> {
        if self.is_dead() { Box::pin(async { Err(DEAD) }) } else { self.inner.scan(table, prefix, after, limit) }
    }

    fn commit(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            match self.left.fetch_sub(1, Ordering::SeqCst) {
                1.. => self.inner.commit(writes).await,
                0 if self.carried_out => self.inner.commit(writes).await.and(Err(DEAD)),
                _ => Err(DEAD),
            }
        })
    }
}
