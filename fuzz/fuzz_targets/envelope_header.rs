//! A header is either refused or exactly what encoding the parsed one gives; and only magic, version 1, suite 1 and no
//! flags are accepted, with any key id.
#![no_main]

use blindvault_fuzz::reference;
use libfuzzer_sys::fuzz_target;
use vault_core::envelope::{HEADER, Header};
use vault_core::id::KeyId;

fuzz_target!(|data: &[u8]| {
    let valid = data.len() >= HEADER && data.starts_with(b"BLV\x01\x01\0");
    match Header::parse(data) {
        Ok(header) => assert!(valid && header.encode() == data[..HEADER]),
        Err(_) => assert!(!valid),
    }
    if let Some(id) = data.first_chunk() {
        let header = Header { key_id: KeyId(*id) };
        assert_eq!(header.encode(), reference::header(id));
        assert_eq!(Header::parse(&header.encode()), Ok(header));
    }
});
