//! A file that can be written to without changing it: what is written stays in memory and goes with it.
//!
//! redb repairs while it opens. A damaged file must stay as it is, so it is opened over this first.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::fs::File;

const BLOCK: usize = 4096;

/// The file below with the writes above. Clones share both.
#[derive(Clone)]
pub(super) struct Overlay(Arc<Mutex<Layers>>);

struct Layers {
    base: Option<Box<dyn File>>,
    /// How much of the base still shows: less than its length once it was cut.
    base_len: u64,
    len: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Over a file.
    pub(super) fn over(base: Box<dyn File>) -> io::Result<Self> {
        let len = base.len()?;
        Ok(Self(Arc::new(Mutex::new(Layers { base: Some(base), base_len: len, len, blocks: BTreeMap::new() }))))
    }

    /// Over nothing.
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self(Arc::new(Mutex::new(Layers { base: None, base_len: 0, len: 0, blocks: BTreeMap::new() })))
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overlay")
    }
}

impl Layers {
    /// What the base shows at `offset`, zeros where it ends.
    fn read_base(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let shown = usize::try_from(self.base_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (from_base, zeros) = out.split_at_mut(shown);
        zeros.fill(0);
        match &self.base {
            Some(base) if shown > 0 => base.read_exact_at(offset, from_base),
            _ => Ok(()),
        }
    }

    /// The block of this number, brought up from the base where needed.
    fn block_mut(&mut self, number: u64) -> io::Result<&mut Vec<u8>> {
        if !self.blocks.contains_key(&number) {
            let mut bytes = vec![0; BLOCK];
            self.read_base(number * BLOCK as u64, &mut bytes)?;
            self.blocks.insert(number, bytes);
        }
        self.blocks.get_mut(&number).ok_or_else(|| io::ErrorKind::Other.into())
    }
}

/// Cuts `len` bytes from `offset` at the blocks' borders: block number, offset in it, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    let mut left = len;
    std::iter::from_fn(move || {
        let within = usize::try_from(at % BLOCK as u64).ok()?;
        let take = left.min(BLOCK - within);
        let piece = (at / BLOCK as u64, within, take);
        at += take as u64;
        left -= take;
        (take > 0).then_some(piece)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.layers().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let layers = self.layers();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > layers.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        layers.read_base(offset, out)?;
        let mut rest = out;
        for (number, within, take) in pieces(offset, rest.len()) {
            let (piece, after) = rest.split_at_mut(take);
            if let Some(bytes) = layers.blocks.get(&number).and_then(|block| block.get(within..within + take)) {
                piece.copy_from_slice(bytes);
            }
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut layers = self.layers();
        if len < layers.len {
            layers.base_len = layers.base_len.min(len);
            let cut = len.div_ceil(BLOCK as u64);
            layers.blocks.split_off(&cut);
            let within = usize::try_from(len % BLOCK as u64).unwrap_or(0);
            if within > 0
                && let Some(tail) = layers.blocks.get_mut(&(len / BLOCK as u64)).and_then(|b| b.get_mut(within..))
            {
                tail.fill(0);
            }
        }
        layers.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut layers = self.layers();
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut rest = data;
        for (number, within, take) in pieces(offset, data.len()) {
            let (piece, after) = rest.split_at(take);
            if let Some(bytes) = layers.block_mut(number)?.get_mut(within..within + take) {
                bytes.copy_from_slice(piece);
            }
            rest = after;
        }
        layers.len = layers.len.max(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::fs::{Fs, Open, OsFs};

    fn file(bytes: &[u8]) -> (tempfile::TempDir, Box<dyn File>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, bytes).unwrap();
        let file = OsFs.open(Path::new(&path), Open::Read).unwrap();
        (dir, file)
    }

    #[derive(Debug, Clone)]
    enum Op {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..20_000_u64, proptest::collection::vec(any::<u8>(), 0..9000)).prop_map(|(at, data)| Op::Write(at, data)),
            (0..20_000_u64).prop_map(Op::SetLen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        /// Reads like a plain vector, and the file below stays as it was.
        #[test]
        fn reads_as_a_vector_would(
            base in proptest::collection::vec(any::<u8>(), 0..14_000),
            ops in proptest::collection::vec(op(), 0..12),
        ) {
            let (dir, file) = file(&base);
            let overlay = Overlay::over(file).unwrap();
            let mut model = base.clone();
            for op in ops {
                match op {
                    Op::Write(at, data) => {
                        overlay.write(at, &data).unwrap();
                        let at = at as usize;
                        model.resize(model.len().max(at + data.len()), 0);
                        model[at..at + data.len()].copy_from_slice(&data);
                    }
                    Op::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                let mut read = vec![1; model.len()];
                overlay.read(0, &mut read).unwrap();
                prop_assert!(read == model);
            }
            prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            prop_assert!(std::fs::read(dir.path().join("f")).unwrap() == base);
        }
    }
}
