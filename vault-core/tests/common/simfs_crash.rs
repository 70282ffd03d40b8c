//! What a crash leaves of the unsynced changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Change, Disk, Entry, NameEdit, Node, SimFs};

/// Steele, Lea and Flood's SplitMix64: small, and the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

impl SimFs {
    /// The disk that the next process finds after a crash at this moment: what was synced, and of the rest what
    /// `seed` draws.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let disk = self.disk();
        let mut rng = Rng::new(seed);
        // A fresh disk: without locks, faults and rules, and nobody has died on it yet.
        let nodes = disk
            .nodes
            .iter()
            .map(|node| {
                let mut bytes = node.platter.clone();
                land_some(&mut bytes, &node.unsynced, &mut rng);
                Node { live: bytes.clone(), platter: bytes, unsynced: Vec::new() }
            })
            .collect();
        let names = land_names(&disk.platter, &disk.unsynced, &mut rng);
        Self(Arc::new(Mutex::new(Disk { nodes, live: names.clone(), platter: names, ..Disk::default() })))
    }

    /// The disk after the process alone was killed: as it saw it, and what was unsynced still is. Its locks are gone.
    pub(crate) fn kill(&self) -> Self {
        let disk = self.disk();
        Self(Arc::new(Mutex::new(Disk {
            nodes: disk.nodes.clone(),
            live: disk.live.clone(),
            platter: disk.platter.clone(),
            unsynced: disk.unsynced.clone(),
            ..Disk::default()
        })))
    }
}

/// Applies to `bytes` what reaches the platter: any subset, in any order, each whole or in part.
pub(super) fn land_some(bytes: &mut Vec<u8>, changes: &[Change], rng: &mut Rng) {
    // Now and then all or nothing: the plain cases must not drown.
    let keep = match rng.below(8) {
        0 => 0,
        1 => 100,
        _ => 5 + rng.below(91),
    };
    let mut landing: Vec<&Change> = changes.iter().filter(|_| rng.below(100) < keep).collect();
    for i in (1..landing.len()).rev() {
        landing.swap(i, rng.below(i + 1));
    }
    for change in landing {
        match change {
            Change::Write { offset, data } if rng.below(3) == 0 => {
                for part in tear(*offset, data, rng) {
                    part.apply(bytes);
                }
            }
            whole => whole.apply(bytes),
        }
    }
}

/// The parts of a torn write that land.
fn tear(offset: usize, data: &[u8], rng: &mut Rng) -> Vec<Change> {
    let part = |from: usize, to: usize| Change::Write { offset: offset + from, data: data[from..to].to_vec() };
    let cut = |rng: &mut Rng| {
        let at = rng.below(data.len() + 1);
        // Half of the cuts fall on the disk's sectors, half anywhere.
        if rng.below(2) == 0 { ((offset + at) / 512 * 512).saturating_sub(offset) } else { at }
    };
    match rng.below(4) {
        0 => vec![part(0, cut(rng))],
        1 => vec![part(cut(rng), data.len())],
        2 => {
            let (a, b) = (cut(rng), cut(rng));
            vec![part(0, a.min(b)), part(a.max(b), data.len())]
        }
        _ => {
            let mut parts = Vec::new();
            let mut from = 0;
            while from < data.len() {
                let to = ((offset + from) / 512 * 512 + 512 - offset).min(data.len());
                if rng.below(2) == 0 {
                    parts.push(part(from, to));
                }
                from = to;
            }
            parts
        }
    }
}

/// Each name stands, apart from the others, as some moment since its last sync had it; but the old name of a rename
/// is never gone without the new one having come.
fn land_names(platter: &BTreeMap<PathBuf, Entry>, edits: &[NameEdit], rng: &mut Rng) -> BTreeMap<PathBuf, Entry> {
    let mut kept: BTreeMap<&Path, usize> = BTreeMap::new();
    for edit in edits {
        *kept.entry(&edit.name).or_default() += 1;
    }
    for count in kept.values_mut() {
        *count = rng.below(*count + 1);
    }
    let mut names = platter.clone();
    let mut seen: BTreeMap<&Path, usize> = BTreeMap::new();
    for edit in edits {
        let nth = seen.entry(&edit.name).or_default();
        *nth += 1;
        if *nth > kept[edit.name.as_path()] {
            continue;
        }
        if let Some(new) = &edit.after
            && seen.get(new.as_path()) > kept.get(new.as_path())
        {
            continue;
        }
        match edit.to {
            Some(entry) => names.insert(edit.name.clone(), entry),
            None => names.remove(&edit.name),
        };
    }
    // What stands in a directory that is not there is not there.
    let dirs: Vec<PathBuf> = names.iter().filter(|(_, e)| **e == Entry::Dir).map(|(p, _)| p.clone()).collect();
    names.retain(|path, _| path.ancestors().skip(1).all(|dir| dirs.iter().any(|d| d == dir)));
    names
}
