//! A checkpoint verifies only with the text that the log signed, and a cosignature only with the text and the time that
//! the witness signed, whatever is done to the note; verifier keys are read in one form; nothing panics.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use blindvault_fuzz::change::{Change, changed_text};
use blindvault_fuzz::note::Signer;
use libfuzzer_sys::fuzz_target;
use vault_core::audit::{Checkpoint, LogVerifier, WitnessVerifier};
use vault_core::time::Timestamp;

static LOG: LazyLock<Signer> = LazyLock::new(|| Signer::new("example/log", 1));
static WITNESS: LazyLock<Signer> = LazyLock::new(|| Signer::witness("example/witness", 2));
static VERIFIERS: LazyLock<(LogVerifier, WitnessVerifier)> =
    LazyLock::new(|| (LogVerifier::parse(&LOG.vkey()).unwrap(), WitnessVerifier::parse(&WITNESS.vkey()).unwrap()));

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    Note { size: u64, root: [u8; 32], seconds: u32, witness_first: bool, changes: Vec<Change> },
    Keys(bool, Vec<Change>),
}

fn parse_keys(text: &str) {
    let plain = text.strip_suffix('\n').unwrap_or(text);
    assert!(LogVerifier::parse(text).is_ok_and(|key| key.vkey() != plain) == false);
    assert!(WitnessVerifier::parse(text).is_ok_and(|key| key.vkey() != plain) == false);
}

fuzz_target!(|input: Input<'_>| {
    let (log, witness) = &*VERIFIERS;
    match input {
        Input::Text(text) => {
            // Of somebody who has no key.
            assert!(Checkpoint::verify(text, log).is_err());
            assert!(!witness.cosigned(text).is_ok_and(|time| time.is_some()));
            assert!(!log.has_signed(text).is_ok_and(|signed| signed));
            parse_keys(text);
        }
        Input::Note { size, root, seconds, witness_first, changes } => {
            let text = LOG.checkpoint(size, &root);
            let mut lines = [LOG.line(&text), WITNESS.cosignature(&text, seconds.into())];
            if witness_first {
                lines.reverse();
            }
            let note = format!("{text}\n{}", lines.concat());
            let checkpoint = Checkpoint { size, root };
            let time = Timestamp(u64::from(seconds) * 1000);
            assert_eq!(Checkpoint::verify(&note, log), Ok(checkpoint));
            assert_eq!(witness.cosigned(&note), Ok(Some(time)));
            let spoiled = changed_text(&note, &changes);
            if let Ok(found) = Checkpoint::verify(&spoiled, log) {
                assert!(found == checkpoint && spoiled.starts_with(&text), "the log did not sign it");
            }
            if let Ok(Some(found)) = witness.cosigned(&spoiled) {
                assert!(found == time && spoiled.starts_with(&text), "the witness did not sign it");
            }
        }
        Input::Keys(of_log, changes) => {
            let key = if of_log { LOG.vkey() } else { WITNESS.vkey() };
            parse_keys(&key);
            parse_keys(&changed_text(&key, &changes));
        }
    }
});
