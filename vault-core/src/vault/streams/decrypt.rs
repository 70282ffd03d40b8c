//! Decrypting a stream, or a part of one.

use super::ATTEMPTS;
use super::standing::Standing;
use crate::envelope::{
    Context, DataKey, Header, Layout, PlainRange, RangeOpener, SEALED_CHUNK, STREAM_FRONT, StreamOpener, Suite,
};
use crate::error::{Dependency, Error};
use crate::id::{KeyId, KeyVersion};
use crate::keys::OpeningPlan;
use crate::policy::Decrypt;
use crate::principal::Workload;
use crate::secret::SecretBytes;
use crate::vault::data::{key_of, opaque};
use crate::vault::{Target, Vault};

/// A stream to decrypt.
#[derive(Debug, Clone, Copy)]
pub struct DecryptStreamRequest<'v> {
    /// What it is about.
    pub target: &'v Target,
    /// The pairs that were given to encrypt.
    pub context: &'v Context,
    /// The first 78 bytes of the envelope; fewer only if it has no more, and then it does not open.
    pub front: &'v [u8],
    /// What of it, if not all.
    pub part: Option<StreamPart>,
}

/// Which part of a stream is to be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPart {
    /// The length of the whole envelope, in bytes. It is proven by the last chunk before anything else opens.
    pub envelope_len: u64,
    /// The part of the plaintext.
    pub range: PlainRange,
}

/// A stream that is being decrypted, from [`Vault::decrypt_stream`]. What [`Self::open`] answers is authentic and in its
/// place; that it is all there is is known once [`Self::finish`] has answered. Use nothing of it before, where that
/// matters.
///
/// Once a call has failed, or its future was dropped half-way, the stream has ended. Dropped before [`Self::finish`], it
/// leaves the outcome "cancelled" in the audit log.
pub struct DecryptStream<'v> {
    standing: Standing<'v, Decrypt>,
    context: &'v Context,
    opener: Opener,
    /// The chunk that is not complete yet; opened in place.
    pending: SecretBytes,
    filled: usize,
}

impl std::fmt::Debug for DecryptStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecryptStream").field("filled", &self.filled).finish_non_exhaustive()
    }
}

enum Opener {
    Whole(StreamOpener),
    Part(Box<RangeOpener>),
}

impl Opener {
    fn begin(key: &DataKey, request: &DecryptStreamRequest<'_>) -> Result<Self, Error> {
        let front: &[u8; STREAM_FRONT] = request.front.try_into().map_err(|_| Error::Unopenable)?;
        match request.part {
            None => key.open_stream(request.context, front).map(Self::Whole),
            Some(StreamPart { envelope_len, range }) => {
                let layout = Layout::of_envelope(envelope_len)?;
                let part = RangeOpener::begin(key, request.context, front, (layout, range))?;
                Ok(Self::Part(Box::new(part)))
            }
        }
    }

    fn resume(&mut self, key: &DataKey, context: &Context) -> Result<(), Error> {
        match self {
            Self::Whole(opener) => opener.resume(key, context),
            Self::Part(opener) => opener.resume(key, context),
        }
    }

    fn is_wiped(&self) -> bool {
        match self {
            Self::Whole(opener) => opener.is_wiped(),
            Self::Part(opener) => opener.is_wiped(),
        }
    }

    /// Bytes of the next chunk that opens before the end; `None` if there is none.
    fn wants(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => Some(SEALED_CHUNK),
            Self::Part(opener) => opener.wants(),
        }
    }

    /// Opens such a chunk; or the last, where it is no full one and the whole is opened.
    fn open<'c>(&mut self, sealed: &'c mut [u8]) -> Result<&'c mut [u8], Error> {
        match self {
            Self::Whole(opener) if sealed.len() == SEALED_CHUNK => opener.open_chunk(sealed),
            Self::Whole(opener) => opener.open_last(sealed),
            Self::Part(opener) => opener.open(sealed),
        }
    }
}

impl Vault {
    /// Begins to decrypt a stream, or a part of one: authorizes it, and compares the commitment. Which policies allow it is
    /// the action `Decrypt`'s business.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub async fn decrypt_stream<'v>(
        &'v self,
        who: &'v Workload,
        request: DecryptStreamRequest<'v>,
    ) -> Result<DecryptStream<'v>, Error> {
        let header = Header::parse_as(Suite::Stream, request.front).ok();
        // Before the decision: the log may have taken its time since.
        let decided = self.clock.monotonic_millis();
        let permit = self.permit::<Decrypt>(who, request.target, 1).await?;
        let plan = self.plan_opening(&permit, header).await;
        let recorded = self.intend(permit, key_of(&plan, header)).await.map_err(opaque)?;
        let begun = match plan {
            Ok(plan) => {
                let opener = self.keys.open_with(&recorded, &plan, |key| Opener::begin(key, &request)).await;
                opener.map(|opener| (opener, plan.key))
            }
            Err(error) => Err(error),
        };
        let (opener, key) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.settle(recorded, Err(error)).await,
        };
        let standing = Standing::new((self, who, request.target), (recorded, decided), key, Error::Unopenable);
        let pending = SecretBytes::new(vec![0; SEALED_CHUNK]);
        Ok(DecryptStream { standing, context: request.context, opener, pending, filled: 0 })
    }
}

impl DecryptStream<'_> {
    /// The data key.
    pub const fn key_id(&self) -> KeyId {
        self.standing.key.key_id
    }

    /// Its version.
    pub const fn key_version(&self) -> KeyVersion {
        self.standing.key.version
    }

    /// Takes more of the envelope, behind its front, any number of bytes; answers the plaintext of the chunks that became
    /// complete, perhaps none. Memory is a chunk, and the answer.
    ///
    /// For a part of a stream it takes the pieces that [`Layout::pieces`] names, in their order: the last chunk first.
    ///
    /// # Errors
    /// [`Error::Unopenable`] whatever is wrong with the envelope; [`Error::Invalid`] naming `offset` for a part behind the
    /// end; what a call that begins now would be refused with, if policy, consent, keys or the like changed;
    /// [`Error::FailedPrecondition`] if the stream has ended. Nothing of what was given is released then.
    pub async fn open(&mut self, envelope: &[u8]) -> Result<SecretBytes, Error> {
        self.standing.begin()?;
        let done = self.open_full(envelope).await.map_err(opaque);
        self.standing.end(done).await
    }

    /// Ends the stream: what there was is all of it. Answers what was left, once it is in the audit log that it is done.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::Unopenable`] for a stream that was cut.
    pub async fn finish(mut self) -> Result<SecretBytes, Error> {
        self.standing.begin()?;
        let done = self.open_rest().await.map_err(opaque);
        let rest = self.standing.end(done).await?;
        self.standing.complete().await?;
        Ok(rest)
    }

    /// Has an idle stream decided again. Call it several times a second while there is nothing to [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn tick(&mut self) -> Result<(), Error> {
        self.standing.begin()?;
        let done = self.standing.ready().await.map_err(opaque);
        self.standing.end(done).await
    }

    async fn open_full(&mut self, envelope: &[u8]) -> Result<SecretBytes, Error> {
        // No chunk is longer than what it was sealed from.
        let mut out = SecretBytes::new(vec![0; self.filled + envelope.len()]);
        let (mut at, mut rest) = (0, envelope);
        while !rest.is_empty() {
            let wanted = self.opener.wants().ok_or(Error::Unopenable)?;
            let (now, later) = rest.split_at(rest.len().min(wanted.saturating_sub(self.filled)));
            let end = self.filled + now.len();
            self.pending.expose_mut().get_mut(self.filled..end).ok_or(Error::Unopenable)?.copy_from_slice(now);
            (rest, self.filled) = (later, end);
            if end < wanted {
                break;
            }
            let place = out.expose_mut().get_mut(at..).ok_or(Error::Unopenable)?;
            at += self.chunk(place).await?;
        }
        out.truncate(at);
        Ok(out)
    }

    async fn open_rest(&mut self) -> Result<SecretBytes, Error> {
        if let Opener::Whole(_) = self.opener {
            let mut out = SecretBytes::new(vec![0; self.filled]);
            let len = self.chunk(out.expose_mut()).await?;
            out.truncate(len);
            return Ok(out);
        }
        self.standing.ready().await?;
        match &mut self.opener {
            Opener::Part(opener) if self.filled == 0 => opener.finish(),
            _ => Err(Error::Unopenable),
        }
    }

    /// Opens the chunk that is pending, once the stream may go on; with the key loaded anew if it was evicted. Puts what
    /// is released of it to the front of `out`, and answers how much that is.
    async fn chunk(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        self.standing.ready().await?;
        let len = std::mem::take(&mut self.filled);
        for _ in 0..ATTEMPTS {
            let sealed = self.pending.expose_mut().get_mut(..len).ok_or(Error::Unopenable)?;
            // Asked behind the call: what is not wiped then, was not before.
            let opened = self.opener.open(sealed).and_then(|chunk| {
                out.get_mut(..chunk.len()).ok_or(Error::Unopenable)?.copy_from_slice(chunk);
                Ok(chunk.len())
            });
            match opened {
                Err(_) if self.opener.is_wiped() => {}
                Err(error) => return Err(error),
                Ok(released) => {
                    self.standing.count();
                    return Ok(released);
                }
            }
            self.standing.decide_again().await?;
            let (recorded, plan) = (self.standing.recorded()?, OpeningPlan { key: self.standing.key });
            let (opener, context) = (&mut self.opener, self.context);
            self.standing.vault.keys.open_with(recorded, &plan, |key| opener.resume(key, context)).await?;
        }
        Err(Error::unavailable(Dependency::Memory, "the key was evicted; try again"))
    }
}
