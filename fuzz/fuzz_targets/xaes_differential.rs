//! What is in an envelope is plain XAES-256-GCM: somebody else's implementation, the crate `xaes-256-gcm`, opens what the
//! library sealed, and the library opens what that one sealed, once a commitment stands before it.
#![no_main]

use blindvault_fuzz::{ID, KEY, RAW, context_of_key, reference, sorted};
use libfuzzer_sys::fuzz_target;
use vault_core::envelope::Context;
use xaes_256_gcm::aead::{Aead as _, KeyInit as _, Payload};
use xaes_256_gcm::Xaes256Gcm;

fuzz_target!(|input: ([u8; 24], Vec<(String, String)>, Vec<u8>)| {
    let (nonce, pairs, plaintext) = input;
    let pairs: Vec<_> = sorted(&pairs).into_iter().collect();
    let Ok(context) = Context::from_ascending(pairs.iter().copied()) else { return };
    let Ok(ours) = KEY.seal(&context, &plaintext) else { return };
    let (a, key) = (context_of_key(&pairs), reference::suite_key(&RAW));
    let theirs = Xaes256Gcm::new(&key.into());
    let own_nonce: [u8; 24] = ours[22..46].try_into().unwrap();
    let opened = theirs.decrypt(&own_nonce.into(), Payload { msg: &ours[78..], aad: &a });
    assert_eq!(opened.unwrap(), plaintext);
    let sealed = theirs.encrypt(&nonce.into(), Payload { msg: &plaintext, aad: &a }).unwrap();
    let envelope = [&reference::header(&ID)[..], &nonce, &reference::commitment(&key, &nonce), &sealed].concat();
    assert_eq!(KEY.open(&context, &envelope).unwrap().expose(), plaintext);
});
