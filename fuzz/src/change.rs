//! Ways to spoil bytes and texts, as inputs.

use arbitrary::Arbitrary;

/// Most changes that one input makes.
const MOST: usize = 8;

/// One of them.
#[derive(Debug, Clone, Arbitrary)]
pub enum Change {
    Flip(u16, u8),
    Set(u16, u8),
    Cut(u16),
    Append(Vec<u8>),
    Insert(u16, Vec<u8>),
    Remove(u16, u8),
    /// Copies so many bytes from one place over another.
    Copy(u16, u16, u8),
    /// Repeats so many bytes where they are.
    Repeat(u16, u8),
}

fn at(place: u16, len: usize) -> usize {
    usize::from(place) % (len + 1)
}

impl Change {
    fn to(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        match self {
            Self::Flip(place, mask) if len > 0 => bytes[usize::from(*place) % len] ^= mask,
            Self::Set(place, value) if len > 0 => bytes[usize::from(*place) % len] = *value,
            Self::Cut(place) => bytes.truncate(at(*place, len)),
            Self::Append(more) => bytes.extend(more),
            Self::Insert(place, more) => drop(bytes.splice(at(*place, len)..at(*place, len), more.iter().copied())),
            Self::Remove(place, count) => {
                let from = at(*place, len);
                bytes.drain(from..len.min(from + usize::from(*count)));
            }
            Self::Copy(from, to, count) => {
                let (from, to) = (at(*from, len), at(*to, len));
                let count = usize::from(*count).min(len - from.max(to));
                bytes.copy_within(from..from + count, to);
            }
            Self::Repeat(place, count) => {
                let from = at(*place, len);
                let part = bytes[from..len.min(from + usize::from(*count))].to_vec();
                bytes.splice(from..from, part);
            }
            Self::Flip(..) | Self::Set(..) => {}
        }
    }
}

/// The bytes with the first few changes made.
pub fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    changes.iter().take(MOST).for_each(|change| change.to(&mut bytes));
    bytes
}

/// The text with the first few changes made; what is no UTF-8 then is replaced.
pub fn changed_text(text: &str, changes: &[Change]) -> String {
    String::from_utf8_lossy(&changed(text.as_bytes(), changes)).into_owned()
}

/// One of several.
pub fn pick<T: Copy>(from: &[T], by: u8) -> T {
    from[usize::from(by) % from.len()]
}
