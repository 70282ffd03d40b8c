//! `CryptoService.EncryptStream` and `DecryptStream`: one task a stream, which holds one message of the caller's and one
//! of its own, and has the stream decided again whenever it waits.
//!
//! The answer begins when the stream is authorized. The task ends with its caller: when the answer is dropped, because the
//! call was cancelled or its connection cut, the stream is dropped too, and the audit log says `cancelled`.

mod decrypt;
mod encrypt;
mod pipe;

pub(crate) use decrypt::decrypt;
pub(crate) use encrypt::encrypt;
pub(crate) use pipe::{Answers, Bounds};

use vault_core::Error;

/// Bytes of plaintext or envelope in a message, at most.
const MAX_PIECE: usize = 65_536;

/// Refuses a piece that is too large for the memory that a stream may take.
fn piece(field: &'static str, bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > MAX_PIECE {
        return Err(Error::invalid(field, "a message of a stream carries at most 65,536 bytes"));
    }
    Ok(())
}
