//! For [`crate::fuzzing`].

use super::format::Record;

pub(crate) fn rewrite_records(mut chunk: &[u8]) -> Option<Vec<u8>> {
    let mut written = Vec::new();
    while !chunk.is_empty() {
        Record::read(&mut chunk)?.write(&mut written);
    }
    Some(written)
}
