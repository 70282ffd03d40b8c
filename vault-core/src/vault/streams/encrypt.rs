//! Encrypting a stream.

use super::ATTEMPTS;
use super::standing::Standing;
use crate::envelope::{Context, SEALED_CHUNK, STREAM_CHUNK, STREAM_FRONT, StreamSealer};
use crate::error::{Dependency, Error};
use crate::id::{KeyId, KeyVersion};
use crate::keys::SealingPlan;
use crate::policy::Encrypt;
use crate::principal::Workload;
use crate::secret::SecretBytes;
use crate::vault::{Target, Vault};

/// A stream to encrypt.
#[derive(Debug, Clone, Copy)]
pub struct EncryptStreamRequest<'v> {
    /// What it is about.
    pub target: &'v Target,
    /// Pairs that must be given again to decrypt.
    pub context: &'v Context,
}

/// A stream that is being encrypted, from [`Vault::encrypt_stream`]: [`Self::front`], then what [`Self::seal`] answers,
/// then what [`Self::finish`] answers are the envelope.
///
/// Once a call has failed, or its future was dropped half-way, the stream has ended, and what there is of the envelope
/// opens nowhere to its end. Dropped before [`Self::finish`], it leaves the outcome "cancelled" in the audit log.
pub struct EncryptStream<'v> {
    standing: Standing<'v, Encrypt>,
    context: &'v Context,
    sealer: StreamSealer,
    /// Plaintext that does not fill a chunk yet, and room for a tag.
    pending: SecretBytes,
    filled: usize,
}

impl std::fmt::Debug for EncryptStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptStream").field("sealer", &self.sealer).finish_non_exhaustive()
    }
}

impl Vault {
    /// Begins to encrypt a value of any size, under the active data key of its dataset, or of its subject. Which policies
    /// allow it is the action `Encrypt`'s business.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn encrypt_stream<'v>(
        &'v self,
        who: &'v Workload,
        request: EncryptStreamRequest<'v>,
    ) -> Result<EncryptStream<'v>, Error> {
        let EncryptStreamRequest { target, context } = request;
        // Before the decision: the log may have taken its time since.
        let decided = self.clock.monotonic_millis();
        let permit = self.permit::<Encrypt>(who, target, 1).await?;
        let plan = self.keys.plan_sealing(permit.resource()).await;
        let recorded = self.intend(permit, plan.as_ref().ok().map(|plan| plan.key)).await?;
        let begun = match plan {
            Ok(plan) => self.keys.seal_with(&recorded, plan, |key| key.seal_stream(context)).await,
            Err(error) => Err(error),
        };
        let (sealer, key) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.settle(recorded, Err(error)).await,
        };
        let destroyed = Error::FailedPrecondition("the data key is suspended or destroyed");
        let standing = Standing::new((self, who, target), (recorded, decided), key, destroyed);
        let pending = SecretBytes::new(vec![0; SEALED_CHUNK]);
        Ok(EncryptStream { standing, context, sealer, pending, filled: 0 })
    }
}

impl EncryptStream<'_> {
    /// The first 78 bytes of the envelope.
    pub const fn front(&self) -> &[u8; STREAM_FRONT] {
        self.sealer.front()
    }

    /// The data key.
    pub const fn key_id(&self) -> KeyId {
        self.standing.key.key_id
    }

    /// Its version.
    pub const fn key_version(&self) -> KeyVersion {
        self.standing.key.version
    }

    /// Takes more of the plaintext, any number of bytes; answers the chunks that became full, perhaps none. What is left
    /// is kept, less than 16 KiB. Memory is that, and the answer.
    ///
    /// # Errors
    /// What a call that begins now would be refused with, if policy, consent, keys or the like changed;
    /// [`Error::Invalid`] naming `plaintext` beyond 4 PiB; [`Error::FailedPrecondition`] if the stream has ended.
    pub async fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        self.standing.begin()?;
        let done = self.seal_full(plaintext).await;
        self.standing.end(done).await
    }

    /// Ends the stream; answers its last chunk, once it is in the audit log that it is done.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub async fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.standing.begin()?;
        let done = self.seal_last().await;
        let last = self.standing.end(done).await?;
        self.standing.complete().await?;
        Ok(last)
    }

    /// Has an idle stream decided again. Call it several times a second while there is nothing to [`Self::seal`].
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub async fn tick(&mut self) -> Result<(), Error> {
        self.standing.begin()?;
        let done = self.standing.ready().await;
        self.standing.end(done).await
    }

    async fn seal_full(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let full = (self.filled + plaintext.len()) / STREAM_CHUNK;
        // Wiped if the stream fails half-way; what is left of it is sealed otherwise.
        let mut out = SecretBytes::new(vec![0; full * SEALED_CHUNK]);
        let mut rest = plaintext;
        for sealed in out.expose_mut().chunks_exact_mut(SEALED_CHUNK) {
            let (held, fresh) = sealed.split_at_mut(self.filled);
            held.copy_from_slice(self.pending.expose().get(..self.filled).unwrap_or_default());
            let room = STREAM_CHUNK - self.filled;
            let (now, later) = rest.split_at(room);
            fresh.get_mut(..room).unwrap_or_default().copy_from_slice(now);
            (rest, self.filled) = (later, 0);
            Self::chunk(&mut self.standing, &mut self.sealer, self.context, sealed).await?;
        }
        let end = self.filled + rest.len();
        self.pending.expose_mut().get_mut(self.filled..end).unwrap_or_default().copy_from_slice(rest);
        self.filled = end;
        Ok(out.into_sealed())
    }

    async fn seal_last(&mut self) -> Result<Vec<u8>, Error> {
        let len = self.filled + SEALED_CHUNK - STREAM_CHUNK;
        self.pending.truncate(len);
        let last = self.pending.expose_mut();
        Self::chunk(&mut self.standing, &mut self.sealer, self.context, last).await?;
        Ok(last.to_vec())
    }

    /// Seals a chunk, full or the last, once the stream may go on; with the key loaded anew if it was evicted.
    async fn chunk(
        standing: &mut Standing<'_, Encrypt>,
        sealer: &mut StreamSealer,
        context: &Context,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        standing.ready().await?;
        for _ in 0..ATTEMPTS {
            let sealed =
                if buffer.len() == SEALED_CHUNK { sealer.seal_chunk(buffer) } else { sealer.seal_last(buffer) };
            match sealed {
                Err(_) if sealer.is_wiped() => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    standing.count();
                    return Ok(());
                }
            }
            standing.decide_again().await?;
            let (recorded, plan) = (standing.recorded()?, SealingPlan::going_on(standing.key));
            standing.vault.keys.seal_with(recorded, plan, |key| sealer.resume(key, context)).await?;
        }
        Err(Error::unavailable(Dependency::Memory, "the key was evicted; try again"))
    }
}
