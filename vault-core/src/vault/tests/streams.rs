//! Streams through the whole vault: what they release, what the log says of them, and what ends them while they run.

use super::consents::entries;
use super::*;
use crate::audit::{Body, Entry, Status};
use crate::envelope::{Layout, PlainRange, STREAM_CHUNK, STREAM_FRONT};
use crate::id::Subject;
use crate::keys::{GrantOrder, Seen};
use crate::policy::{BASELINE_SCHEMA, PolicySet, Registry};
use crate::vault::{DecryptStreamRequest, EncryptStreamRequest, StreamPart};

/// The longest that a decision holds.
const AGAIN: u64 = 100;

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 253) as u8).collect()
}

/// Encrypts in pieces of odd sizes.
fn seal_stream(vault: &Vault, target: &Target, plaintext: &[u8]) -> Vec<u8> {
    block_on(async {
        let (who, context) = (workload("billing"), context());
        let request = EncryptStreamRequest { target, context: &context };
        let mut stream = vault.encrypt_stream(&who, request).await.unwrap();
        let mut envelope = stream.front().to_vec();
        for piece in plaintext.chunks(10_007) {
            envelope.extend(stream.seal(piece).await.unwrap());
            stream.tick().await.unwrap();
        }
        envelope.extend(stream.finish().await.unwrap());
        envelope
    })
}

/// Decrypts in pieces of `step` bytes; `between` is done after the first of them.
fn open_stream(
    vault: &Vault,
    who: &str,
    (target, envelope): (&Target, &[u8]),
    step: usize,
    between: impl FnOnce(),
) -> (usize, Result<Vec<u8>, Error>) {
    let (who, context) = (workload(who), context());
    let (front, chunks) = envelope.split_at(STREAM_FRONT.min(envelope.len()));
    let mut released = Vec::new();
    let mut between = Some(between);
    let done = block_on(async {
        let request = DecryptStreamRequest { target, context: &context, front, part: None };
        let mut stream = vault.decrypt_stream(&who, request).await?;
        for piece in chunks.chunks(step) {
            released.extend_from_slice(stream.open(piece).await?.expose());
            if let Some(between) = between.take() {
                between();
            }
        }
        released.extend_from_slice(stream.finish().await?.expose());
        Ok(())
    });
    (released.len(), done.map(|()| released))
}

#[test]
fn a_stream_of_any_length_comes_back_whole_or_in_part() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    for len in [0, 1, STREAM_CHUNK - 1, STREAM_CHUNK, STREAM_CHUNK + 1, 200_000] {
        let plain = plaintext(len);
        let envelope = seal_stream(vault, &target, &plain);
        assert_eq!(envelope.len() as u64, Layout::of_plaintext(len as u64).unwrap().envelope_len());
        for step in [1_000, 16_400, 65_536] {
            assert_eq!(open_stream(vault, "billing", (&target, &envelope), step, || {}).1.unwrap(), plain);
        }
        let cut = &envelope[..envelope.len() - 1];
        assert_eq!(open_stream(vault, "billing", (&target, cut), 65_536, || {}).1, Err(Error::Unopenable));
        // A call of one value takes no stream, and a stream no envelope of one value.
        assert_eq!(open(vault, &target, &envelope), Err(Error::Unopenable));
        let request = DecryptRequest { target: &target, context: &context(), envelope: &envelope };
        let rewrapped = block_on(vault.rewrap(&workload("billing"), request));
        assert!(matches!(rewrapped, Err(Error::Invalid { field, .. }) if field == "envelope"));
    }
    let one = seal(vault, &target);
    assert_eq!(open_stream(vault, "billing", (&target, &one), 9, || {}), (0, Err(Error::Unopenable)));
    let plain = plaintext(100_000);
    let envelope = seal_stream(vault, &target, &plain);
    let part = |range: PlainRange| {
        let (who, context) = (workload("billing"), context());
        let layout = Layout::of_envelope(envelope.len() as u64).unwrap();
        let part = Some(StreamPart { envelope_len: envelope.len() as u64, range });
        let front = &envelope[..STREAM_FRONT];
        let request = DecryptStreamRequest { target: &target, context: &context, front, part };
        block_on(async {
            let mut stream = vault.decrypt_stream(&who, request).await?;
            let mut released = Vec::new();
            for (at, len) in layout.pieces(range).skip(1) {
                for piece in envelope[at as usize..(at + len) as usize].chunks(5_000) {
                    released.extend_from_slice(stream.open(piece).await?.expose());
                }
            }
            released.extend_from_slice(stream.finish().await?.expose());
            Ok::<_, Error>(released)
        })
    };
    assert_eq!(part(PlainRange { offset: 20_000, length: 50_000 }).unwrap(), plain[20_000..70_000]);
    assert_eq!(part(PlainRange { offset: 99_000, length: 50_000 }).unwrap(), plain[99_000..]);
    assert_eq!(part(PlainRange { offset: 40_000, length: 3 }).unwrap(), plain[40_000..40_003]);
    let behind = part(PlainRange { offset: 100_001, length: 3 });
    assert!(matches!(behind, Err(Error::Invalid { field, .. }) if field == "offset"));
}

/// One that runs, and is to end within the time a decision holds: with what error, after something was done to it.
fn ends_when(scene: &Scene, target: &Target, who: &str, done: impl FnOnce(), error: &Error) {
    let vault = &scene.vault;
    let envelope = seal_stream(vault, target, &plaintext(100_000));
    let (all, before) = open_stream(vault, who, (target, &envelope), 16_400, || {});
    assert_eq!((all, before.map(|bytes| bytes.len())), (100_000, Ok(100_000)), "it is allowed at first");
    let (released, result) = open_stream(vault, who, (target, &envelope), 16_400, || {
        done();
        scene.later(AGAIN);
    });
    assert_eq!(result.as_ref(), Err(error));
    assert_eq!(released, STREAM_CHUNK, "nothing more was released");
}

#[test]
fn a_withdrawn_consent_ends_it() {
    let (_dir, scene) = Scene::new();
    let id = consent(&scene.vault, "acme", &["customers"], "billing");
    let target = to("acme", "customers", "billing");
    let done = || drop(withdraw(&scene.vault, "acme", id).unwrap());
    ends_when(&scene, &target, "billing", done, &Error::Denied(Check::Policy));
}

#[test]
fn a_consent_that_ends_by_itself_ends_it() {
    let (_dir, scene) = Scene::new();
    let until = Some(NOW.plus_millis(5_000));
    give(&scene.vault, "acme", &NewConsent { until, ..new_consent(&["customers"], "billing") }).unwrap();
    let target = to("acme", "customers", "billing");
    let done = || scene.clock.set(NOW.plus_millis(5_000));
    ends_when(&scene, &target, "billing", done, &Error::Denied(Check::Policy));
}

#[test]
fn a_suspended_tenant_ends_it() {
    let (_dir, scene) = Scene::new();
    let (alice, reason) = (operator("alice"), because());
    let done = || drop(block_on(scene.vault.suspend_tenant(&call(&alice, &reason), &tenant("acme"), None)).unwrap());
    ends_when(&scene, &to("acme", "orders", "billing"), "billing", done, &Error::Denied(Check::Suspended));
}

#[test]
fn other_policies_and_another_registry_end_it_at_once() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    let envelope = seal_stream(vault, &target, &plaintext(100_000));
    // Without any time passing: the epoch is looked at before each chunk.
    let closed = PolicySet::load(BASELINE_SCHEMA, &[]).unwrap();
    let swap = || {
        vault.authorizer().swap_policies(closed);
    };
    let (released, result) = open_stream(vault, "billing", (&target, &envelope), 16_400, swap);
    assert_eq!((released, result), (STREAM_CHUNK, Err(Error::Denied(Check::Policy))));

    vault.authorizer().swap_policies(PolicySet::baseline().unwrap());
    let without = Registry::parse(&fixture::REGISTRY.replace("\"acme\", \"globex\"]", "\"globex\"]"), "prod.example");
    let swap = || {
        vault.authorizer().swap_registry(without.unwrap());
    };
    let (released, result) = open_stream(vault, "billing", (&target, &envelope), 16_400, swap);
    assert_eq!((released, result), (STREAM_CHUNK, Err(Error::Denied(Check::Registry))));
}

#[test]
fn the_end_of_a_grant_ends_it() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let order = GrantOrder {
        tenant: tenant("acme"),
        dataset: dataset("orders"),
        workload: workload("signup").spiffe_id().to_owned(),
        roles: vec!["reader".to_owned()],
        until: NOW.plus_millis(60_000),
    };
    let asked = block_on(vault.request_grant(&call(&operator("alice"), &because()), order)).unwrap();
    let seen = Seen { request_sha256: asked.request_sha256, subject: None };
    block_on(vault.approve(&call(&operator("bob"), &because()), (&tenant("acme"), asked.id), seen)).unwrap();
    let done = || scene.clock.set(NOW.plus_millis(60_000));
    ends_when(&scene, &to("acme", "orders", "billing"), "signup", done, &Error::Denied(Check::Policy));
}

#[test]
fn a_shredded_subject_ends_reading_and_writing() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let subject = Subject::parse("user-1842").unwrap();
    let target = Target { subject: Some(subject.clone()), ..to("acme", "orders", "billing") };
    let envelope = seal_stream(vault, &target, &plaintext(100_000));
    let (who, context) = (workload("billing"), context());
    let request = EncryptStreamRequest { target: &target, context: &context };
    let mut writing = block_on(vault.encrypt_stream(&who, request)).unwrap();
    block_on(writing.seal(&plaintext(20_000))).unwrap();
    let shred = || {
        let acme = tenant("acme");
        let asked = block_on(vault.shred_subject(&call(&operator("alice"), &because()), &acme, &subject)).unwrap();
        let seen = Seen { request_sha256: asked.request_sha256, subject: Some(&subject) };
        block_on(vault.approve(&call(&operator("bob"), &because()), (&acme, asked.id), seen)).unwrap();
    };
    // Without any time passing: its keys are wiped.
    let (released, result) = open_stream(vault, "billing", (&target, &envelope), 16_400, shred);
    assert_eq!((released, result), (STREAM_CHUNK, Err(Error::Unopenable)));
    let gone = Error::FailedPrecondition("the data key is suspended or destroyed");
    assert_eq!(block_on(writing.seal(&plaintext(20_000))).unwrap_err(), gone);
    let ended = Error::FailedPrecondition("the stream has ended");
    assert_eq!(block_on(writing.seal(&plaintext(20_000))).unwrap_err(), ended, "it does not come back");
}

#[test]
fn an_idle_stream_is_decided_again_and_a_long_one_outlives_its_first_permit_and_its_key() {
    let (_dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    let (who, context) = (workload("billing"), context());
    let plain = plaintext(100_000);
    let request = EncryptStreamRequest { target: &target, context: &context };
    let mut stream = block_on(vault.encrypt_stream(&who, request)).unwrap();
    let mut envelope = stream.front().to_vec();
    for piece in plain.chunks(20_000) {
        // Longer than any permit holds, and the key is loaded anew each time.
        scene.later(40_000);
        vault.keys().evict_all();
        envelope.extend(block_on(stream.seal(piece)).unwrap());
    }
    envelope.extend(block_on(stream.finish()).unwrap());
    let evict = || vault.keys().evict_all();
    assert_eq!(open_stream(vault, "billing", (&target, &envelope), 16_400, evict).1.unwrap(), plain);

    let front = &envelope[..STREAM_FRONT];
    let request = DecryptStreamRequest { target: &target, context: &context, front, part: None };
    let mut idle = block_on(vault.decrypt_stream(&who, request)).unwrap();
    let (alice, reason) = (operator("alice"), because());
    block_on(vault.suspend_tenant(&call(&alice, &reason), &tenant("acme"), None)).unwrap();
    scene.later(AGAIN);
    assert_eq!(block_on(idle.tick()), Err(Error::Denied(Check::Suspended)));
}

/// What the log has of streams, in its order: "intent", and how each ended.
fn told(dir: &Path, scene: Scene) -> Vec<String> {
    scene.vault.close().unwrap();
    let entries = entries(dir);
    let told = |entry: &Entry| match &entry.body {
        Body::Intent { decided, .. } if matches!(decided.action.as_str(), "Encrypt" | "Decrypt") => {
            Some(format!("{} by {}", decided.action, decided.epoch))
        }
        Body::Outcome { status, reason, items, .. } => Some(match status {
            Status::Done => format!("done {items} {reason}"),
            Status::Partial => format!("partial {items} {reason}"),
            Status::Failed => format!("failed {reason}"),
            Status::Cancelled => "cancelled".to_owned(),
        }),
        Body::Refused { check, .. } => Some(format!("refused {check}")),
        _ => None,
    };
    entries.iter().filter_map(told).map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn the_log_tells_how_each_ended() {
    let (dir, scene) = Scene::new();
    let vault = &scene.vault;
    let target = to("acme", "orders", "billing");
    let envelope = seal_stream(vault, &target, &plaintext(100_000));
    open_stream(vault, "billing", (&target, &envelope), 16_400, || {}).1.unwrap();
    // Decided again by other policies that allow it, too: by which, an entry of its own tells.
    let swap = || {
        vault.authorizer().swap_policies(PolicySet::baseline().unwrap());
    };
    open_stream(vault, "billing", (&target, &envelope), 16_400, swap).1.unwrap();
    let mut bad = envelope.clone();
    bad[STREAM_FRONT + 3 * 16_400] ^= 1;
    open_stream(vault, "billing", (&target, &bad), 16_400, || {}).1.unwrap_err();
    bad[60] ^= 1;
    open_stream(vault, "billing", (&target, &bad), 16_400, || {}).1.unwrap_err();
    let (who, context) = (workload("billing"), context());
    let front = &envelope[..STREAM_FRONT];
    let request = DecryptStreamRequest { target: &target, context: &context, front, part: None };
    let mut dropped = block_on(vault.decrypt_stream(&who, request)).unwrap();
    block_on(dropped.open(&envelope[STREAM_FRONT..40_000])).unwrap();
    drop(dropped);
    let (alice, reason) = (operator("alice"), because());
    let mut refused = block_on(vault.decrypt_stream(&who, request)).unwrap();
    block_on(refused.open(&envelope[STREAM_FRONT..40_000])).unwrap();
    block_on(vault.suspend_tenant(&call(&alice, &reason), &tenant("acme"), None)).unwrap();
    scene.later(AGAIN);
    block_on(refused.open(&[])).unwrap();
    block_on(refused.tick()).unwrap_err();
    drop(refused);
    let expected = [
        "Encrypt by 1",
        "done 7",
        "Decrypt by 1",
        "done 7",
        "Decrypt by 1",
        "Decrypt by 2",
        "done 1 decided again",
        "done 7",
        "Decrypt by 2",
        "partial 3 the envelope does not open",
        "Decrypt by 2",
        "failed the envelope does not open",
        "Decrypt by 2",
        "cancelled",
        "Decrypt by 2",
        "refused suspended",
        "partial 2 denied",
    ];
    assert_eq!(told(dir.path(), scene), expected);
}
