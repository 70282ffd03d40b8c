use std::collections::BTreeMap;

use super::*;
use crate::audit::merkle::{consistency_proof, leaf_hash, verify_consistency};
use crate::fs::OsFs;

fn name(level: Option<usize>, index: u64, width: usize) -> String {
    tile_path(Path::new("log"), level, index, width).display().to_string()
}

#[test]
fn paths_are_those_of_the_specification() {
    assert_eq!(name(Some(0), 1_234_067, 256), "log/tile/0/x001/x234/067");
    assert_eq!(name(Some(1), 0, 17), "log/tile/1/000.p/17");
    assert_eq!(name(None, 999, 256), "log/tile/entries/999");
    assert_eq!(name(None, 1000, 1), "log/tile/entries/x001/000.p/1");
}

#[test]
fn a_tree_of_70000_has_the_tiles_of_the_specification() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut builder = Builder::default();
    let mut sink = |tile: Tile<'_>| {
        if tile.level.is_some() {
            assert_eq!(tile.bytes.len(), tile.width * 32);
        }
        *seen.entry(format!("{:?} {}", tile.level, tile.width)).or_default() += 1;
        Ok(())
    };
    for n in 0..70_000u32 {
        builder.push(b"", leaf_hash(&n.to_be_bytes()), &mut sink).unwrap();
    }
    builder.partials(&mut sink).unwrap();
    let count = |key: &str| seen.get(key).copied().unwrap_or(0);
    assert_eq!(count("Some(0) 256"), 273);
    assert_eq!(count("Some(0) 112"), 1);
    assert_eq!(count("Some(1) 256"), 1);
    assert_eq!(count("Some(1) 17"), 1);
    assert_eq!(count("Some(2) 1"), 1);
    assert_eq!((count("None 256"), count("None 112")), (273, 1));
    assert_eq!(seen.len(), 7);
}

#[test]
fn proofs_from_tiles_verify_across_levels() {
    let temp = tempfile::tempdir().unwrap();
    let mut builder = Builder::default();
    let mut edge = Edge::new();
    let mut roots = vec![edge.root()];
    let size = 700u64;
    let mut sink = |tile: Tile<'_>| write(&OsFs, temp.path(), &tile);
    for n in 0..size {
        let leaf = leaf_hash(&n.to_be_bytes());
        builder.push(b"entry", leaf, &mut sink).unwrap();
        edge.push(leaf);
        roots.push(edge.root());
    }
    builder.partials(&mut sink).unwrap();
    let reader = TileReader::new(&OsFs, temp.path(), size);
    for old in (0..=size).step_by(13) {
        let proof = consistency_proof(&reader, old, size).unwrap();
        let old_root = roots[usize::try_from(old).unwrap()];
        assert!(verify_consistency(old, &old_root, size, &edge.root(), &proof), "{old}");
    }
    assert!(reader.subtree(0, size).is_err());
    assert!(reader.subtree(9, 1).is_err());
}

#[test]
fn partial_tiles_go_when_the_full_one_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let mut builder = Builder::default();
    let mut sink = |tile: Tile<'_>| write(&OsFs, temp.path(), &tile);
    for n in 0..256u64 {
        builder.push(b"e", leaf_hash(&n.to_be_bytes()), &mut sink).unwrap();
        if n == 9 {
            builder.partials(&mut sink).unwrap();
            assert!(temp.path().join("tile/0/000.p/10").exists());
        }
    }
    assert!(!temp.path().join("tile/0/000.p/10").exists());
    assert!(!temp.path().join("tile/entries/000.p/10").exists());
    assert_eq!(std::fs::read(temp.path().join("tile/0/000")).unwrap().len(), 8192);
}
