//! A stream opens to exactly what was sealed: chunks that are changed, moved, repeated, dropped or cut are refused, what
//! was released before is the beginning of the plaintext, and a range is that part of it. The second implementation is
//! no part of this: the vectors and the decoder in Python are.
#![no_main]

use arbitrary::Arbitrary;
use blindvault_fuzz::KEY;
use libfuzzer_sys::fuzz_target;
use vault_core::Error;
use vault_core::envelope::{Context, Layout, PlainRange, RangeOpener, SEALED_CHUNK, STREAM_CHUNK, STREAM_FRONT};

#[derive(Debug, Arbitrary)]
enum Change {
    Flip(u32, u8),
    Cut(u32),
    Append(Vec<u8>),
    Swap(u8, u8),
    Repeat(u8),
    Drop(u8),
}

#[derive(Debug, Arbitrary)]
struct Input {
    /// Up to four chunks and a bit: a length, and what the plaintext begins with.
    len: u32,
    begins: Vec<u8>,
    changes: Vec<Change>,
    offset: u32,
    length: u32,
}

const TAG: usize = SEALED_CHUNK - STREAM_CHUNK;

fn seal(plaintext: &[u8]) -> Vec<u8> {
    let mut sealer = KEY.seal_stream(&Context::empty()).unwrap();
    let mut envelope = sealer.front().to_vec();
    let mut chunks = plaintext.chunks_exact(STREAM_CHUNK);
    for chunk in &mut chunks {
        let mut buffer = [chunk, &[0; TAG]].concat();
        sealer.seal_chunk(&mut buffer).unwrap();
        envelope.extend(buffer);
    }
    let mut buffer = [chunks.remainder(), &[0; TAG]].concat();
    sealer.seal_last(&mut buffer).unwrap();
    envelope.extend(buffer);
    envelope
}

fn open(envelope: &[u8]) -> (Vec<u8>, Result<(), Error>) {
    let mut released = Vec::new();
    let result = (|| {
        let (front, chunks) = envelope.split_first_chunk().ok_or(Error::Unopenable)?;
        let mut opener = KEY.open_stream(&Context::empty(), front)?;
        let mut chunks = chunks.chunks_exact(SEALED_CHUNK);
        for chunk in &mut chunks {
            released.extend_from_slice(opener.open_chunk(&mut chunk.to_vec())?);
        }
        released.extend_from_slice(opener.open_last(&mut chunks.remainder().to_vec())?);
        Ok(())
    })();
    (released, result)
}

fn open_range(envelope: &[u8], range: PlainRange) -> Result<Vec<u8>, Error> {
    let layout = Layout::of_envelope(envelope.len() as u64)?;
    let front = envelope.first_chunk().ok_or(Error::Unopenable)?;
    let mut opener = RangeOpener::begin(&KEY, &Context::empty(), front, (layout, range))?;
    let mut released = Vec::new();
    for (at, len) in layout.pieces(range).skip(1) {
        for chunk in envelope[at as usize..(at + len) as usize].chunks(SEALED_CHUNK) {
            released.extend_from_slice(opener.open(&mut chunk.to_vec())?);
        }
    }
    released.extend_from_slice(opener.finish()?.expose());
    Ok(released)
}

fn change(envelope: &mut Vec<u8>, change: &Change) {
    let chunks = envelope.len().saturating_sub(STREAM_FRONT) / SEALED_CHUNK;
    let place = |chunk: &u8| STREAM_FRONT + usize::from(*chunk) % chunks.max(1) * SEALED_CHUNK;
    match change {
        Change::Flip(at, mask) if !envelope.is_empty() => {
            let at = *at as usize % envelope.len();
            envelope[at] ^= mask;
        }
        Change::Cut(len) => envelope.truncate(*len as usize % (envelope.len() + 1)),
        Change::Append(bytes) => envelope.extend(bytes),
        Change::Swap(one, two) if chunks > 0 => {
            let (one, two) = (place(one), place(two));
            let first = envelope[one..one + SEALED_CHUNK].to_vec();
            envelope.copy_within(two..two + SEALED_CHUNK, one);
            envelope[two..two + SEALED_CHUNK].copy_from_slice(&first);
        }
        Change::Repeat(chunk) if chunks > 0 => {
            let at = place(chunk);
            let again = envelope[at..at + SEALED_CHUNK].to_vec();
            envelope.splice(at..at, again);
        }
        Change::Drop(chunk) if chunks > 0 => {
            let at = place(chunk);
            envelope.drain(at..at + SEALED_CHUNK);
        }
        _ => {}
    }
}

fuzz_target!(|input: Input| {
    let mut plaintext: Vec<u8> =
        (0..input.len as usize % (4 * STREAM_CHUNK + 100)).map(|at| (at / STREAM_CHUNK) as u8).collect();
    for (byte, new) in plaintext.iter_mut().zip(&input.begins) {
        *byte = *new;
    }
    let envelope = seal(&plaintext);
    let mut changed = envelope.clone();
    input.changes.iter().take(4).for_each(|one| change(&mut changed, one));
    let (released, result) = open(&changed);
    assert!(plaintext.starts_with(&released), "something else was released");
    assert_eq!(result, if changed == envelope { Ok(()) } else { Err(Error::Unopenable) });
    assert!(result.is_err() || released == plaintext);
    let range = PlainRange { offset: input.offset.into(), length: input.length.into() };
    // Of a changed one, a range may still open that the change did not touch: then it is that of the plaintext, or of
    // nothing, where it is behind its end.
    match open_range(&changed, range) {
        Ok(part) => {
            let from = plaintext.len().min(input.offset as usize);
            let to = plaintext.len().min(from.saturating_add(input.length as usize));
            assert_eq!(part, plaintext[from..to]);
            assert!(input.offset as usize <= plaintext.len());
        }
        Err(Error::Unopenable) => assert!(changed != envelope),
        Err(error) => {
            assert!(matches!(error, Error::Invalid { .. }) && input.offset as usize > plaintext.len(), "{error}");
        }
    }
});
