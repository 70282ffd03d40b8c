//! The one part of redb's file that its checksums leave open.
//!
//! redb's page checksums form a tree, as Merkle's do, whose root stands in a commit slot with a checksum of its own.
//! The file's first 64 bytes have none: a flipped bit of the *primary* flag there would silently answer the commit
//! before the last, and an acknowledged write would be gone. So before redb sees a file, this module looks at the
//! header itself (file format 3, described in redb's `design.md`, "super-header"):
//! - the fixed fields must be those of a new file;
//! - if the flag names the older of two commits, either the flag is damaged or a process died between the two syncs of
//!   a commit. Both times the newer commit is right if all of it is there, and else the older one. That is how redb
//!   chooses without its *two-phase* flag, so that flag is hidden from it until it has written the header anew.

/// Bytes of redb's header with its two commit slots.
pub(super) const HEADER_LEN: usize = 320;
/// Where the flags stand in the file.
pub(super) const FLAGS_AT: usize = 9;

const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
const PRIMARY: u8 = 1;
const NOT_CLOSED: u8 = 2;
const TWO_PHASE: u8 = 4;
const KNOWN_FLAGS: u8 = PRIMARY | NOT_CLOSED | TWO_PHASE;
/// Padding; page size 4096; no region header; 2^20 pages a region (u32, little-endian). Written once, at creation.
const FIXED: &[u8] = &[0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0];
const SLOT_LEN: usize = 128;
const SLOTS_AT: [usize; 2] = [64, 64 + SLOT_LEN];
const SLOT_VERSION: u8 = 3;
const TRANSACTION_ID_AT: usize = 104;

/// What a header that is all right says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The flags to show to redb in place of those in the file, if any.
    pub(super) show: Option<u8>,
    /// The last process to write did not get to close the file.
    pub(super) unclosed: bool,
}

/// Looks at a file's first bytes.
///
/// # Errors
/// What is wrong, for a message.
pub(super) fn inspect(bytes: &[u8; HEADER_LEN]) -> Result<Header, &'static str> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err("offset 0: not the magic number of a store; another program's file?");
    };
    let Some((&flags, rest)) = rest.split_first() else {
        return Err("offset 9: the header ends");
    };
    if flags & !KNOWN_FLAGS != 0 {
        return Err("offset 9: unknown flags");
    }
    if !rest.starts_with(FIXED) {
        return Err("offset 10: page and region sizes are not those a store is created with");
    }
    let [first, second] = SLOTS_AT.map(|at| slot(bytes, at));
    let (first, second) = (first?, second?);
    let (primary, secondary) = if flags & PRIMARY == 0 { (first, second) } else { (second, first) };
    Ok(Header { show: (secondary > primary).then_some(flags & !TWO_PHASE), unclosed: flags & NOT_CLOSED != 0 })
}

/// The transaction id of a commit slot.
fn slot(bytes: &[u8; HEADER_LEN], at: usize) -> Result<u64, &'static str> {
    const SHORT: &str = "offset 64: the commit slots end";
    let slot = bytes.get(at..at + SLOT_LEN).ok_or(SHORT)?;
    match slot.first() {
        Some(&SLOT_VERSION) => {}
        Some(version) if *version > SLOT_VERSION => {
            return Err(
                "commit slots at offset 64: a newer file format than this program reads; use the program that \
                        wrote it",
            );
        }
        _ => return Err("commit slots at offset 64: an unknown file format version"),
    }
    let id = slot.get(TRANSACTION_ID_AT..).and_then(|id| id.first_chunk::<8>()).ok_or(SHORT)?;
    Ok(u64::from_le_bytes(*id))
}

#[cfg(test)]
mod tests {
    use redb::{Builder, StorageBackend, TableDefinition};

    use super::super::overlay::Overlay;
    use super::*;

    /// The header of a file with two commits in it, as redb itself writes it.
    fn header() -> [u8; HEADER_LEN] {
        const T: TableDefinition<'static, u64, u64> = TableDefinition::new("t");
        let overlay = Overlay::empty();
        let db = Builder::new().create_with_backend(overlay.clone()).unwrap();
        for n in 0..2 {
            let mut txn = db.begin_write().unwrap();
            txn.set_two_phase_commit(true);
            txn.open_table(T).unwrap().insert(n, n).unwrap();
            txn.commit().unwrap();
        }
        let mut bytes = [0; HEADER_LEN];
        overlay.read(0, &mut bytes).unwrap();
        bytes
    }

    /// If this fails, redb has changed its format: the offsets here and the file's version are to be looked at anew.
    #[test]
    fn redb_writes_what_is_expected_here() {
        let bytes = header();
        assert_eq!(inspect(&bytes).unwrap().show, None);
        assert_eq!(bytes[FLAGS_AT] & TWO_PHASE, TWO_PHASE);
        let ids = SLOTS_AT.map(|at| slot(&bytes, at).unwrap());
        assert_eq!(ids[0].abs_diff(ids[1]), 1);
    }

    #[test]
    fn a_flipped_primary_flag_hides_the_two_phase_flag() {
        let mut bytes = header();
        bytes[FLAGS_AT] ^= PRIMARY;
        assert_eq!(inspect(&bytes).unwrap().show, Some(bytes[FLAGS_AT] & !TWO_PHASE));
    }

    #[test]
    fn other_damage_is_named() {
        for (at, bit, text) in [(3, 1, "offset 0"), (9, 0x80, "offset 9"), (12, 1, "offset 10"), (23, 1, "offset 10")] {
            let mut bytes = header();
            bytes[at] ^= bit;
            assert!(inspect(&bytes).unwrap_err().contains(text), "{at}");
        }
        for at in SLOTS_AT {
            let mut bytes = header();
            bytes[at] = 4;
            assert!(inspect(&bytes).unwrap_err().contains("newer"));
        }
    }
}
