//! A header is either refused or exactly what encoding the parsed one gives; and only magic, version 1, suites 1 and 2
//! and no flags are accepted, with any key id; one of a suite never as one of the other.
#![no_main]

use blindvault_fuzz::reference;
use libfuzzer_sys::fuzz_target;
use vault_core::envelope::{HEADER, Header, Suite};
use vault_core::id::KeyId;

fuzz_target!(|data: &[u8]| {
    let of = |start: &[u8]| data.len() >= HEADER && data.starts_with(start);
    let (record, stream) = (of(b"BLV\x01\x01\0"), of(b"BLV\x01\x02\0"));
    let valid = record || stream;
    assert_eq!(Header::parse_as(Suite::Record, data).is_ok(), record);
    assert_eq!(Header::parse_as(Suite::Stream, data).is_ok(), stream);
    match Header::parse(data) {
        Ok(header) => assert!(valid && header.encode() == data[..HEADER]),
        Err(_) => assert!(!valid),
    }
    if let Some(id) = data.first_chunk() {
        let header = Header::new(Suite::Record, KeyId(*id));
        assert_eq!(header.encode(), reference::header(id));
        assert_eq!(Header::parse(&header.encode()), Ok(header));
    }
});
