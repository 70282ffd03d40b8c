//! Two implementations of the format agree: what the library seals (ring), the RustCrypto one opens, under the nonce
//! and commitment that it computes itself; and the other way round.
#![no_main]

use blindvault_fuzz::{ID, KEY, RAW, context_of_key, reference, sorted};
use libfuzzer_sys::fuzz_target;
use vault_core::envelope::Context;

fuzz_target!(|input: ([u8; 24], Vec<(String, String)>, Vec<u8>)| {
    let (nonce, pairs, plaintext) = input;
    let pairs: Vec<_> = sorted(&pairs).into_iter().collect();
    let Ok(context) = Context::from_ascending(pairs.iter().copied()) else { return };
    let Ok(ours) = KEY.seal(&context, &plaintext) else { return };
    let (header, a) = (reference::header(&ID), context_of_key(&pairs));
    assert_eq!(reference::open(&RAW, &header, &a, &ours).as_deref(), Some(&plaintext[..]));
    let own_nonce = ours[22..46].try_into().unwrap();
    assert_eq!(reference::seal(&RAW, &header, own_nonce, &a, &plaintext), ours);
    let theirs = reference::seal(&RAW, &header, &nonce, &a, &plaintext);
    assert_eq!(KEY.open(&context, &theirs).unwrap().expose(), plaintext);
});
