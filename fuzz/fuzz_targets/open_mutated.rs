//! Opening accepts exactly what was sealed: a changed envelope is refused, without a panic, and leaves no plaintext in
//! the buffer it was given in.
#![no_main]

use blindvault_fuzz::{KEY, sorted};
use libfuzzer_sys::fuzz_target;
use vault_core::Error;
use vault_core::envelope::Context;

type Input = (Vec<u8>, Vec<(String, String)>, Vec<(u16, u8)>, Option<u16>, Vec<u8>);

fuzz_target!(|input: Input| {
    let (plaintext, pairs, flips, cut, appended) = input;
    let Ok(context) = Context::from_pairs(sorted(&pairs)) else { return };
    let Ok(envelope) = KEY.seal(&context, &plaintext) else { return };
    let mut changed = envelope.clone();
    for (at, mask) in flips {
        let at = usize::from(at) % changed.len();
        changed[at] ^= mask;
    }
    changed.truncate(cut.map_or(usize::MAX, usize::from));
    changed.extend(appended);
    let opened = KEY.open(&context, &changed).map(|opened| opened.expose().to_vec());
    assert_eq!(opened, if changed == envelope { Ok(plaintext.clone()) } else { Err(Error::Unopenable) });
    let mut buffer = changed.clone();
    assert_eq!(KEY.open_in_place(&context, &mut buffer).map(|opened| opened.to_vec()), opened);
    // Eight bytes that appear by chance, or that were appended, would be no fault.
    if opened.is_err() && plaintext.len() >= 8 && !changed.windows(plaintext.len()).any(|w| w == plaintext) {
        assert!(!buffer.windows(plaintext.len()).any(|w| w == plaintext), "plaintext left behind");
    }
});
