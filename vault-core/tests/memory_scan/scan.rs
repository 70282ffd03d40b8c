//! Looks through the memory of another process.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::needles::Needles;

/// One piece of a needle that was found.
pub(super) struct Hit {
    /// The needle's name.
    pub(super) name: &'static str,
    /// True if that is the locked arena.
    pub(super) in_arena: bool,
    /// The mapping's addresses.
    pub(super) region: Range<u64>,
    /// The mapping's name, for people.
    pub(super) region_name: String,
}

/// A mapping of the process.
pub(super) struct Region {
    from: u64,
    to: u64,
    in_arena: bool,
    name: String,
}

/// All that can be read of process `pid`. What the kernel wipes in a forked child is the arena: nothing else asks for
/// that.
pub(super) fn regions(pid: u32) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    for line in std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap().lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["VmFlags:", ref flags @ ..] => {
                if let Some(region) = regions.last_mut() {
                    region.in_arena = flags.contains(&"wf");
                }
            }
            [range, access, _, _, _, ref name @ ..] if range.contains('-') => {
                let (from, to) = range.split_once('-').unwrap();
                let number = |hex| u64::from_str_radix(hex, 16).unwrap();
                let name = format!("{access} {}", name.join(" "));
                regions.push(Region { from: number(from), to: number(to), in_arena: false, name });
            }
            _ => {}
        }
    }
    // The kernel's own pages, which hold nothing of ours and partly cannot be read.
    regions.retain(|r| r.name.starts_with('r') && !r.name.contains("[v"));
    regions
}

const STEP: u64 = 1 << 20;

/// Calls `see` with each piece of the region; pieces overlap by seven bytes.
fn pieces(memory: &File, region: &Region, mut see: impl FnMut(&[u8])) {
    let mut buffer = vec![0; usize::try_from(STEP + 7).unwrap()];
    let mut from = region.from;
    while from < region.to {
        let len = usize::try_from((region.to - from).min(STEP + 7)).unwrap();
        // A stack's mapping may have grown or shrunk meanwhile; what is not there holds nothing.
        let read = memory.read_at(&mut buffer[..len], from).unwrap_or(0);
        see(&buffer[..read]);
        from += STEP;
    }
}

/// Every occurrence of a needle anywhere.
pub(super) fn scan(pid: u32, needles: &Needles) -> Vec<Hit> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut starts = vec![false; 1 << 16];
    let start = |piece: &[u8]| usize::from(u16::from_ne_bytes([piece[0], piece[1]]));
    needles.keys().for_each(|needle| starts[start(needle)] = true);
    let mut hits = Vec::new();
    let mut seen = 0;
    for region in regions(pid) {
        pieces(&memory, &region, |bytes| {
            seen += bytes.len();
            for piece in bytes.windows(8) {
                if starts[start(piece)]
                    && let Some(name) = needles.get(piece)
                {
                    let (range, region_name) = (region.from..region.to, region.name.clone());
                    hits.push(Hit { name, in_arena: region.in_arena, region: range, region_name });
                }
            }
        });
    }
    assert!(seen > 1 << 20, "only {seen} bytes could be read");
    hits
}

/// The `len` bytes in front of `marker`, for each place in the arena where it lies.
pub(super) fn preceding(pid: u32, marker: &[u8], len: usize) -> Vec<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    for region in regions(pid).iter().filter(|region| region.in_arena) {
        pieces(&memory, region, |bytes| {
            for (at, window) in bytes.windows(marker.len()).enumerate() {
                if window == marker && at >= len {
                    found.push(bytes[at - len..at].to_vec());
                }
            }
        });
    }
    found
}
