//! Who may sign bundles, what must be proved of them, and for which vault they must be.

use std::fmt;
use std::sync::Arc;

use futures_channel::oneshot;

use super::{Bundle, BundleRef, SignedBundle};
use crate::audit::LogVerifier;
use crate::error::{Dependency, Error};
use crate::policy::{PolicySet, Registry};

/// Most policy signers of an installation.
pub const MAX_SIGNERS: usize = 16;

/// The keys of the policy signers, and how many of them it takes.
#[derive(Debug, Clone, Default)]
pub struct Signers {
    keys: Vec<LogVerifier>,
    quorum: usize,
}

impl Signers {
    /// No signers: no bundle is accepted.
    pub const fn none() -> Self {
        Self { keys: Vec::new(), quorum: 0 }
    }

    /// These keys, and so many of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `signers` or `quorum`: none or too many, a name or a key twice, a quorum that is not
    /// between 1 and their number.
    pub fn new(keys: Vec<LogVerifier>, quorum: usize) -> Result<Self, Error> {
        if keys.is_empty() || keys.len() > MAX_SIGNERS {
            return Err(Error::invalid("signers", "must be 1 to 16 keys"));
        }
        for (at, key) in keys.iter().enumerate() {
            let mut before = keys.iter().take(at);
            if before.any(|other| other.is_same_key(key) || other.origin() == key.origin()) {
                return Err(Error::invalid("signers", "names a signer or a key twice"));
            }
        }
        if !(1..=keys.len()).contains(&quorum) {
            return Err(Error::invalid("quorum", "must be 1 to the number of signers"));
        }
        Ok(Self { keys, quorum })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> &[LogVerifier] {
        &self.keys
    }

    /// Checks the signatures of a bundle, and says whose they are. Those of other keys count for nothing.
    ///
    /// # Errors
    /// [`Error::FailedPrecondition`] without signers; [`Error::Invalid`] naming `signatures` if too few of them have
    /// signed, or a signature that names one of them is not its own.
    pub fn verify(&self, signed: &SignedBundle) -> Result<Vec<String>, Error> {
        if self.is_empty() {
            return Err(NO_SIGNERS);
        }
        let note = signed.note();
        let mut found = Vec::new();
        for key in &self.keys {
            match key.has_signed(&note) {
                Ok(true) => found.push(key.origin().to_owned()),
                Ok(false) => {}
                Err(_) => return Err(Error::invalid("signatures", "a signature is malformed or does not verify")),
            }
        }
        if found.len() < self.quorum {
            return Err(Error::invalid("signatures", "too few of the policy signers have signed it"));
        }
        Ok(found)
    }
}

/// What is said where bundles are asked for and nobody may sign them.
pub(super) const NO_SIGNERS: Error =
    Error::FailedPrecondition("no policy signers are configured: policies come from files, not from bundles");

/// Decides whether a proof record shows of a bundle what must be proved before it may come into force.
pub trait ProofCheck: Send + Sync + fmt::Debug + 'static {
    /// Checks the record that was brought with a bundle; `None` if none was. It is asked when a bundle is validated, when
    /// it is proposed, when it comes into force, and by every gateway that loads it, at its start too. What it accepts must
    /// depend on its arguments alone; what it refuses it may accept later, if something was missing here. It is asked on a
    /// thread of its own and may block.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `proof`: there is none, it is of other texts, of another prover, or not of everything;
    /// [`Error::NotProven`] if it was to be proved here, and was not.
    fn check(&self, bundle: &Bundle, record: Option<&str>) -> Result<(), Error>;
}

/// What a vault demands of bundles.
#[derive(Debug, Clone)]
pub struct PolicyTrust {
    /// Who may sign them.
    pub signers: Signers,
    /// The trust domain of the workloads that registries may name.
    pub workload_domain: String,
    /// What must be proved of them; `None` for nothing.
    pub proof: Option<Arc<dyn ProofCheck>>,
}

/// A bundle that holds everything that is demanded of it, apart from its place behind the one in force.
#[derive(Debug)]
pub struct Judged {
    /// Which bundle.
    pub reference: BundleRef,
    /// Which of the policy signers have signed it.
    pub signers: Vec<String>,
    /// Its policies, ready to decide.
    pub set: PolicySet,
    /// Its registry.
    pub registry: Registry,
}

impl PolicyTrust {
    /// Judges a bundle for an instance: signatures, proof, and every text.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the field.
    pub fn judge(&self, signed: &SignedBundle, instance: &str) -> Result<Judged, Error> {
        let bundle = signed.bundle();
        if bundle.instance != instance {
            return Err(Error::invalid("instance", "the bundle is for another installation"));
        }
        let signers = self.signers.verify(signed)?;
        // Before the proof, which takes longer, and whose words for a text that does not load name no line.
        let (set, registry) = bundle.load(&self.workload_domain)?;
        if let Some(proof) = &self.proof {
            proof.check(bundle, signed.proof())?;
        }
        Ok(Judged { reference: signed.reference(), signers, set, registry })
    }

    /// The same on a thread of its own: it may take a second, and the stack that the parser needs.
    ///
    /// # Errors
    /// As [`Self::judge`]; [`Error::Unavailable`] if there is no thread.
    pub(crate) async fn judge_aside(&self, signed: SignedBundle, instance: &str) -> Result<Judged, Error> {
        let (trust, instance) = (self.clone(), instance.to_owned());
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            // Nobody may be waiting any more.
            drop(sender.send(trust.judge(&signed, &instance)));
        };
        std::thread::Builder::new()
            .name("vault-policy-load".into())
            .spawn(work)
            .map_err(|_| Error::unavailable(Dependency::Policy, "no thread for loading a policy bundle"))?;
        let ended = |_| Err(Error::unavailable(Dependency::Policy, "loading a policy bundle ended early"));
        receiver.await.unwrap_or_else(ended)
    }
}
