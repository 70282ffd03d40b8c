//! One session with the key in it: AES-GCM inside the module, and the bytes that come of it.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use zeroize::Zeroizing;

use super::{IvSource, fresh_iv};
use crate::kms::RootError;

/// Bytes of an initialization vector.
pub(super) const IV: usize = 12;
const TAG: usize = 16;
const VERSION: u8 = 1;
/// What a session seals when it is opened, and opens again to show that it still works.
const PROBE: &[u8] = b"blindvault probe";
const PROBE_AAD: &[u8] = b"blindvault/pkcs11/probe\0";

/// A session that is logged in, the key in it, and something sealed to try it with.
pub(super) struct Live {
    session: Session,
    key: ObjectHandle,
    iv: IvSource,
    probe: Option<Sealed>,
}

/// `01 ‖ IV(12) ‖ ciphertext ‖ tag(16)`.
pub(super) struct Sealed {
    iv: [u8; IV],
    body: Vec<u8>,
}

impl Sealed {
    /// Reads it; `None` if it is of another version or not of a possible length. The length is checked first.
    pub(super) fn parse(bytes: &[u8], most: usize) -> Option<Self> {
        if bytes.len() > 1 + IV + most + TAG {
            return None;
        }
        let (version, rest) = bytes.split_first()?;
        let (iv, body) = rest.split_first_chunk()?;
        (*version == VERSION && body.len() > TAG).then(|| Self { iv: *iv, body: body.to_vec() })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [&[VERSION][..], &self.iv, &self.body].concat()
    }
}

/// Why the session did not do it.
pub(super) enum Failure {
    /// The module said no; which code it chose says nothing reliable.
    Module,
    /// Something on our side, or an answer that is no answer.
    Other(RootError),
}

impl Live {
    /// # Errors
    /// [`Failure`] if the key does not open what it seals.
    pub(super) fn new(session: Session, key: ObjectHandle, iv: IvSource) -> Result<Self, Failure> {
        let mut live = Self { session, key, iv, probe: None };
        live.probe = Some(live.seal(PROBE, PROBE_AAD)?);
        if live.works() { Ok(live) } else { Err(Failure::Module) }
    }

    /// Whether the session is there, logged in, and the key opens.
    pub(super) fn works(&self) -> bool {
        let opened = self.probe.as_ref().map(|probe| self.open(probe, PROBE_AAD));
        matches!(opened, Some(Ok(bytes)) if bytes.as_slice() == PROBE)
    }

    pub(super) fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Result<Sealed, Failure> {
        let mut iv = fresh_iv(self.iv).map_err(Failure::Other)?;
        let body = {
            let mechanism = gcm(&mut iv, aad)?;
            self.session.encrypt(&mechanism, self.key, plaintext).map_err(|_| Failure::Module)?
        };
        let unusable = |why| Err(Failure::Other(RootError::Unavailable(why)));
        if iv == [0; IV] {
            return unusable("the module left the initialization vector to us: set iv to \"os\"");
        }
        if body.len() != plaintext.len() + TAG {
            return unusable("the module's answer has another length than AES-GCM gives");
        }
        Ok(Sealed { iv, body })
    }

    pub(super) fn open(&self, sealed: &Sealed, aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut iv = sealed.iv;
        let mechanism = gcm(&mut iv, aad)?;
        let opened = self.session.decrypt(&mechanism, self.key, &sealed.body).map_err(|_| Failure::Module)?;
        let opened = Zeroizing::new(opened);
        if opened.len() + TAG != sealed.body.len() {
            return Err(Failure::Other(RootError::Unavailable(
                "the module's answer has another length than was sealed",
            )));
        }
        Ok(opened)
    }

    /// Random bytes of the module; left as they are if it has no generator.
    pub(super) fn random(&self, out: &mut [u8]) -> Result<(), Failure> {
        match self.session.generate_random_slice(out) {
            Ok(()) | Err(Error::Pkcs11(RvError::RandomNoRng | RvError::FunctionNotSupported, _)) => Ok(()),
            Err(_) => Err(Failure::Module),
        }
    }
}

fn gcm<'a>(iv: &'a mut [u8], aad: &'a [u8]) -> Result<Mechanism<'a>, Failure> {
    let tag_bits = Ulong::new(128);
    GcmParams::new(iv, aad, tag_bits).map(Mechanism::AesGcm).map_err(|_| Failure::Module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_are_read_back_and_nothing_else_is() {
        let sealed = Sealed { iv: [7; IV], body: vec![9; 48] };
        let bytes = sealed.bytes();
        assert_eq!(bytes.len(), 61);
        let read = Sealed::parse(&bytes, 32).unwrap();
        assert_eq!((read.iv, read.body.as_slice()), (sealed.iv, sealed.body.as_slice()));
        for len in 0..=1 + IV + TAG {
            assert!(Sealed::parse(&bytes[..len], 32).is_none(), "{len} bytes");
        }
        assert!(Sealed::parse(&bytes, 31).is_none());
        for version in [0, 2, 255] {
            assert!(Sealed::parse(&[&[version], &bytes[1..]].concat(), 32).is_none());
        }
    }
}
