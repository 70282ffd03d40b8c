//! What goes into data-plane calls and comes out of them.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

use crate::receipt::AuditReceipt;

/// Whose value it is, what it is about and why it is used. The same target, but for the purpose, must be given to
/// decrypt as was given to encrypt.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) tenant: String,
    pub(crate) dataset: String,
    pub(crate) purpose: String,
    pub(crate) subject: Option<String>,
    pub(crate) context: HashMap<String, String>,
    pub(crate) end_user: Option<EndUserToken>,
}

/// The access token of an end user, as their identity provider gave it; wiped when the last copy goes.
#[derive(Clone, PartialEq, Eq)]
pub struct EndUserToken(Bytes);

impl EndUserToken {
    /// Takes a copy; the caller still has to wipe its own.
    pub fn new(token: &str) -> Self {
        Self(wiped(token.as_bytes()))
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

/// Shows nothing of it.
impl fmt::Debug for EndUserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndUserToken(…)")
    }
}

impl Target {
    /// A value of a tenant's dataset, used for a purpose. The gateway checks the form of all three.
    pub fn new(tenant: impl Into<String>, dataset: impl Into<String>, purpose: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            dataset: dataset.into(),
            purpose: purpose.into(),
            subject: None,
            context: HashMap::new(),
            end_user: None,
        }
    }

    /// Asks for an end user, whose token this is. It is no part of what is sealed, and need not be the same to decrypt.
    #[must_use]
    pub fn end_user(mut self, token: EndUserToken) -> Self {
        self.end_user = Some(token);
        self
    }

    /// Names the person the value is about, whose own data key then seals it.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds a pair to the encryption context; a second value for the same key replaces the first.
    #[must_use]
    pub fn context(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }
}

/// Shows nothing of the subject or the context.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, dataset, purpose, .. } = self;
        f.debug_struct("Target")
            .field("tenant", tenant)
            .field("dataset", dataset)
            .field("purpose", purpose)
            .finish_non_exhaustive()
    }
}

/// One value or envelope of a batch; tenant and purpose are the batch's.
#[derive(Clone)]
pub struct BatchItem {
    pub(crate) dataset: String,
    pub(crate) subject: Option<String>,
    pub(crate) context: HashMap<String, String>,
    pub(crate) bytes: Bytes,
}

impl BatchItem {
    /// A plaintext to encrypt. The copy made here is wiped once it is sent.
    pub fn plaintext(dataset: impl Into<String>, plaintext: &[u8]) -> Self {
        Self::new(dataset, wiped(plaintext))
    }

    /// An envelope to decrypt.
    pub fn envelope(dataset: impl Into<String>, envelope: impl Into<Bytes>) -> Self {
        Self::new(dataset, envelope.into())
    }

    fn new(dataset: impl Into<String>, bytes: Bytes) -> Self {
        Self { dataset: dataset.into(), subject: None, context: HashMap::new(), bytes }
    }

    /// Names the person the value is about.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds a pair to the encryption context.
    #[must_use]
    pub fn context(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.insert(key.into(), value.into());
        self
    }
}

/// Shows the dataset only.
impl fmt::Debug for BatchItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchItem").field("dataset", &self.dataset).finish_non_exhaustive()
    }
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The envelope to keep.
    pub envelope: Bytes,
    /// The version of the data key that sealed it.
    pub key_version: u32,
    /// What the audit log holds of the call; items of one batch share theirs.
    pub audit_receipt: Option<AuditReceipt>,
}

/// An opened value.
#[derive(Debug)]
pub struct Opened {
    /// The value.
    pub plaintext: Plaintext,
    /// The version of the data key that had sealed it.
    pub key_version: u32,
    /// What the audit log holds of the call; items of one batch share theirs.
    pub audit_receipt: Option<AuditReceipt>,
}

/// A decrypted value: wiped when dropped, and never printed.
pub struct Plaintext(Zeroizing<Vec<u8>>);

impl Plaintext {
    /// Copies the value out of a response, and wipes it there unless another part of the response shares the buffer.
    pub(crate) fn take(bytes: Bytes) -> Self {
        let out = Self(Zeroizing::new(bytes.to_vec()));
        if let Ok(mut only) = bytes.try_into_mut() {
            only.as_mut().zeroize();
        }
        out
    }

    /// The value. What is copied from here is the caller's to wipe.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value in a vector that wipes itself, but prints itself too.
    pub fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(…)")
    }
}

/// A copy that is wiped when the last reference to it goes.
pub(crate) fn wiped(plaintext: &[u8]) -> Bytes {
    Bytes::from_owner(Zeroizing::new(plaintext.to_vec()))
}
