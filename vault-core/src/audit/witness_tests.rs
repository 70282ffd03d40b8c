use std::time::Duration;

use pollster::block_on;

use super::*;
use crate::audit::merkle::{consistency_proof, leaf_hash};
use crate::audit::test_support::{ORIGIN, Place, refusal};
use crate::audit::{Finding, Log, Pseudonyms, TileReader, VerifyOptions, kept_checkpoint, verify};
use crate::fs::OsFs;

const NOW: Timestamp = Timestamp(1_700_000_000_500);

struct Site {
    temp: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        crate::secret::set_lock_policy(crate::secret::LockPolicy::Allow);
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("state")).unwrap();
        Self { temp }
    }

    fn open(&self, logs: Vec<LogVerifier>) -> Witness {
        let key = self.temp.path().join("witness.key");
        let signer = if key.exists() { WitnessSigner::load } else { WitnessSigner::create };
        let signer = signer(&OsFs, &key, "witness.example/w1").unwrap();
        Witness::open(Arc::new(OsFs), &self.temp.path().join("state"), signer, logs).unwrap()
    }
}

/// A log with so many refusals more, closed; its newest checkpoint.
fn grow(place: &Place, entries: u8) -> (Checkpoint, String) {
    let (log, _): (Log, _) = place.open();
    for n in 0..entries {
        block_on(log.refused(&refusal("acme", n), Pseudonyms::default())).unwrap();
    }
    log.close().unwrap();
    kept_checkpoint(&OsFs, &place.dir, &place.verifier(), None).unwrap()
}

fn ask(place: &Place, old: u64, (head, note): &(Checkpoint, String)) -> String {
    let tiles = TileReader::new(&OsFs, &place.dir, head.size);
    request(old, &consistency_proof(&tiles, old, head.size).unwrap(), note)
}

#[test]
fn a_log_that_only_grows_is_cosigned_and_the_cosignature_verifies() {
    let (site, place) = (Site::new(), Place::new());
    let witness = site.open(vec![place.verifier()]);
    let first = grow(&place, 3);
    let line = witness.add_checkpoint(&ask(&place, 0, &first), NOW).unwrap();
    let second = grow(&place, 250);
    // After a restart as well.
    let witness = site.open(vec![place.verifier()]);
    assert_eq!(witness.last(&place.verifier()).unwrap(), Some(first.0));
    let more = witness.add_checkpoint(&ask(&place, first.0.size, &second), NOW).unwrap();
    let again = witness.add_checkpoint(&ask(&place, second.0.size, &second), NOW).unwrap();
    assert_eq!(again, more, "the same again is cosigned again");
    let key = WitnessVerifier::parse(&witness.verifier().vkey()).unwrap();
    for (note, line) in [(&first.1, &line), (&second.1, &more)] {
        let cosigned = format!("{note}{line}");
        assert_eq!(key.cosigned(&cosigned).unwrap(), Some(Timestamp(1_700_000_000_000)));
        assert_eq!(key.cosigned(note).unwrap(), None);
        Checkpoint::verify(&cosigned, &place.verifier()).unwrap();
        for at in (note.len() + 30..cosigned.len() - 2).step_by(7) {
            let mut bad = cosigned.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(!matches!(key.cosigned(&bad), Ok(Some(_))), "byte {at}");
        }
    }
    assert!(LogVerifier::parse(&key.vkey()).is_err() && WitnessVerifier::parse(&place.verifier().vkey()).is_err());
}

#[test]
fn the_published_example_of_a_cosignature_key_id_is_computed_as_specified() {
    // tlog-cosignature: SHA-256(name ‖ "\n" ‖ 04 ‖ key)[:4], and the signed message, computed here a second time.
    let site = Site::new();
    let witness = site.open(Vec::new());
    let vkey = witness.verifier().vkey();
    let key = STANDARD.decode(vkey.splitn(3, '+').nth(2).unwrap()).unwrap();
    assert_eq!((key[0], key.len()), (4, 33));
    let digest = sha256(&[b"witness.example/w1\n", &key]);
    assert_eq!(vkey.split('+').nth(1).unwrap(), hex::encode(&digest[..4]));
    let line = witness.signer.cosign("a\n1\nx\n", NOW).unwrap();
    let blob = STANDARD.decode(line.trim_end().rsplit_once(' ').unwrap().1).unwrap();
    assert_eq!((&blob[..4], blob.len()), (&digest[..4], 4 + 8 + 64));
    assert_eq!(blob[4..12], 1_700_000_000u64.to_be_bytes());
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &key[1..]);
    public.verify(b"cosignature/v1\ntime 1700000000\na\n1\nx\n", &blob[12..]).unwrap();
}

#[test]
fn a_split_view_is_refused_whichever_way_it_is_shown() {
    let site = Site::new();
    let (place, other) = (Place::new(), Place::new());
    // The same key and origin, another history.
    std::fs::create_dir_all(other.temp.path()).unwrap();
    std::fs::copy(place.temp.path().join("signing.key"), other.temp.path().join("signing.key")).unwrap_or_else(|_| {
        drop(place.signer());
        std::fs::copy(place.temp.path().join("signing.key"), other.temp.path().join("signing.key")).unwrap()
    });
    let witness = site.open(vec![place.verifier()]);
    let one = grow(&place, 5);
    witness.add_checkpoint(&ask(&place, 0, &one), NOW).unwrap();
    let same_size = grow(&other, 5);
    assert_eq!(same_size.0.size, one.0.size);
    Checkpoint::verify(&same_size.1, &place.verifier()).unwrap();
    let forked = NotCosigned::Conflict { size: one.0.size, forked: true };
    assert_eq!(witness.add_checkpoint(&ask(&other, one.0.size, &same_size), NOW), Err(forked));
    let longer = grow(&other, 5);
    assert_eq!(witness.add_checkpoint(&ask(&other, one.0.size, &longer), NOW), Err(NotCosigned::Inconsistent));
    let from_nothing = NotCosigned::Conflict { size: one.0.size, forked: false };
    assert_eq!(witness.add_checkpoint(&ask(&other, 0, &longer), NOW), Err(from_nothing));
    assert_eq!(witness.last(&place.verifier()).unwrap(), Some(one.0), "nothing of it was kept");
}

#[test]
fn a_rollback_is_refused_and_found_with_the_cosigned_checkpoint() {
    let (site, place) = (Site::new(), Place::new());
    let witness = site.open(vec![place.verifier()]);
    grow(&place, 2);
    let early = place.snapshot();
    let late = grow(&place, 2);
    let line = witness.add_checkpoint(&ask(&place, 0, &late), NOW).unwrap();
    std::fs::remove_dir_all(&place.dir).unwrap();
    for (path, bytes) in &early {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let rolled_back = kept_checkpoint(&OsFs, &place.dir, &place.verifier(), None).unwrap();
    let refused = witness.add_checkpoint(&ask(&place, rolled_back.0.size, &rolled_back), NOW);
    assert_eq!(refused, Err(NotCosigned::Conflict { size: late.0.size, forked: false }));
    let cosigned = format!("{}{line}", late.1);
    witness.verifier().cosigned(&cosigned).unwrap().unwrap();
    let outside = vec![Checkpoint::verify(&cosigned, &place.verifier()).unwrap()];
    let options = VerifyOptions { outside, ..VerifyOptions::default() };
    let report = verify(&OsFs, &place.dir, &place.verifier(), &options).unwrap();
    assert!(matches!(report.finding, Some(Finding::Outside { checkpoint, .. }) if checkpoint == late.0));
}

#[test]
fn what_is_not_asked_as_it_should_be_is_refused_with_its_status() {
    let (site, place) = (Site::new(), Place::new());
    let witness = site.open(vec![place.verifier()]);
    let head = grow(&place, 3);
    let good = ask(&place, 0, &head);
    let (first, rest) = good.split_once('\n').unwrap();
    assert_eq!(first, "old 0");
    let status = |body: &str| witness.add_checkpoint(body, NOW).unwrap_err().status();
    for bad in ["old 00", "old", "old -1", "old 0 ", "new 0", "old 99999"] {
        assert_eq!(status(&format!("{bad}\n{rest}")), 400, "{bad}");
    }
    assert_eq!(status(""), 400);
    assert_eq!(status(&good.replace(ORIGIN, "vault.example/audit/1")), 404);
    assert_eq!(status(&good.replacen(ORIGIN, &format!("{ORIGIN}x"), 1)), 404);
    assert_eq!(status(&good.replacen(&format!("\n{}\n", head.0.size), "\n9\n", 1)), 403);
    let hashes = format!("{}\n", STANDARD.encode(leaf_hash(b"x"))).repeat(64);
    assert_eq!(status(&good.replacen("old 0\n", &format!("old 0\n{hashes}"), 1)), 400);
    let one = format!("{}\n", STANDARD.encode(leaf_hash(b"x")));
    assert_eq!(status(&good.replacen("old 0\n", &format!("old 0\n{one}"), 1)), 422);
    // Signed by another key of the same origin.
    let stranger = Place::new();
    let theirs = grow(&stranger, 3);
    assert_eq!(status(&ask(&stranger, 0, &theirs)), 403);
    assert_eq!(witness.last(&place.verifier()).unwrap(), None);
    witness.add_checkpoint(&good, NOW).unwrap();
}

#[test]
fn nothing_is_cosigned_that_cannot_be_kept_and_a_lost_state_is_not_begun_anew() {
    let (site, place) = (Site::new(), Place::new());
    let witness = site.open(vec![place.verifier()]);
    let head = grow(&place, 3);
    let state = site.temp.path().join("state");
    std::fs::remove_dir(&state).unwrap();
    assert_eq!(witness.add_checkpoint(&ask(&place, 0, &head), NOW).unwrap_err().status(), 500);
    let signer = WitnessSigner::load(&OsFs, &site.temp.path().join("witness.key"), "witness.example/w1").unwrap();
    let opened = Witness::open(Arc::new(OsFs), &state, signer, vec![place.verifier()]);
    assert!(matches!(opened.unwrap_err(), Error::NotFound(_)));
    std::fs::create_dir(&state).unwrap();
    witness.add_checkpoint(&ask(&place, 0, &head), NOW).unwrap();
    let file = witness.file(&place.verifier());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[ORIGIN.len() + 1] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(witness.add_checkpoint(&ask(&place, head.0.size, &head), NOW).unwrap_err().status(), 500);
}

#[test]
fn a_log_is_cosigned_while_it_is_open() {
    let (site, place) = (Site::new(), Place::new());
    let witness = site.open(vec![place.verifier()]);
    let (log, _) = place.try_open(Duration::from_millis(1)).unwrap();
    let head = kept_checkpoint(&OsFs, &place.dir, &place.verifier(), Some(1)).unwrap();
    witness.add_checkpoint(&request(0, &[], &head.1), NOW).unwrap();
    log.close().unwrap();
}

/// A witness that knows both keys cosigns across a rotation; one that knows the old one alone does not go on behind it.
#[test]
fn a_rotated_log_is_cosigned_by_who_knows_its_next_key() {
    let place = Place::new();
    let first = grow(&place, 3);
    let old = place.verifier();
    let next = crate::audit::LogSigner::create(&OsFs, &place.temp.path().join("next.key"), ORIGIN).unwrap();
    let new = next.verifier().clone();
    place.open().0.hand_over(next).unwrap();
    let handed = kept_checkpoint(&OsFs, &place.dir, &old, None).unwrap();
    std::fs::rename(place.temp.path().join("next.key"), place.temp.path().join("signing.key")).unwrap();
    let later = grow(&place, 2);
    for (keys, goes_on) in [(vec![old.clone(), new.clone()], true), (vec![old.clone()], false)] {
        let site = Site::new();
        let witness = site.open(keys.clone());
        witness.add_checkpoint(&ask(&place, 0, &first), NOW).unwrap();
        witness.add_checkpoint(&ask(&place, first.0.size, &handed), NOW).unwrap();
        let asked = witness.add_checkpoint(&ask(&place, handed.0.size, &later), NOW);
        assert_eq!(asked.as_ref().map_err(NotCosigned::status).err(), (!goes_on).then_some(403));
        let last = if goes_on { later.0 } else { handed.0 };
        assert_eq!(site.open(keys).last(&old).unwrap(), Some(last));
    }
    let site = Site::new();
    let key = site.temp.path().join("witness.key");
    let signer = WitnessSigner::create(&OsFs, &key, "witness.example/w1").unwrap();
    let twice = Witness::open(Arc::new(OsFs), &site.temp.path().join("state"), signer, vec![old.clone(), old]);
    assert!(matches!(twice, Err(Error::Invalid { field, .. }) if field == "log"));
}
