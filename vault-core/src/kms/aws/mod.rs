//! Root keys in AWS KMS (feature `aws`): `docs/aws-kms.md` says how to set them up and what each error means.
//!
//! ```text
//! AwsKmsProvider ── id `aws-kms:<key ARN>`, if allowed ──▶ AwsKmsRoot
//!   clients, one a region (credentials: never from the environment)
//!                                 line, one a key: place → breaker → attempts, within one deadline
//!                                 answer: KeyId compared, plaintext taken into wiped memory
//! ```
//!
//! Tenant keys are made by `GenerateDataKey` and opened by `Decrypt`, always with the key's ARN and with the encryption
//! context of [`crate::kms::EncryptionContext`]. An answer that names another key than the one that was asked is never
//! used and is an alarm ([`crate::kms::RootError::WrongKey`]).
//!
//! # Copies of key material that are not ours to wipe
//! The plaintext of an answer is moved from the SDK's buffer into one that is wiped, and from there into locked memory.
//! Below that are the SDK, hyper and rustls: the bytes that TLS decrypted, hyper's read buffer and the JSON text with the
//! key in base64 lie on the heap until they are freed, and are *not* overwritten then; likewise, for a key that is being
//! wrapped, the SDK's copy, the JSON text and hyper's write buffer. They last until the allocator gives that memory to
//! something else. This happens once a tenant key is loaded, not for each record.

mod answer;
mod arn;
mod breaker;
mod clients;
mod credentials;
mod line;
mod retry;
mod root;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

pub use arn::KeyArn;
pub use breaker::BreakerSettings;
pub use root::AwsKmsRoot;
pub use settings::{AwsKmsSettings, CredentialSettings, CredentialSource};

use self::clients::Clients;
use self::line::Line;
use self::root::Shared;
use super::{RootKey, RootProvider};
use crate::error::Error;
use crate::time::Clock;

/// Root keys kept at hand. Beyond that, those that nobody uses are dropped and made anew when they are asked for.
const MAX_ROOTS: usize = 10_000;

/// Gives KMS keys by their ids, `aws-kms:` and the ARN, as far as the settings allow them.
#[derive(Debug)]
pub struct AwsKmsProvider {
    settings: AwsKmsSettings,
    clients: Clients,
    runtime: Handle,
    clock: Arc<dyn Clock>,
    roots: Mutex<HashMap<KeyArn, Arc<AwsKmsRoot>>>,
}

impl AwsKmsProvider {
    /// A provider whose calls run on `runtime`, which needs its time and I/O drivers. Nothing is asked of AWS yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the setting at fault.
    pub fn new(settings: AwsKmsSettings, runtime: Handle, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        settings.check()?;
        Ok(Self { clients: Clients::new(&settings), settings, runtime, clock, roots: Mutex::default() })
    }

    /// The root key of an ARN; `None` if the settings do not allow it.
    pub fn key(&self, arn: &KeyArn) -> Option<Arc<AwsKmsRoot>> {
        if !self.settings.allows(arn) {
            return None;
        }
        // Nothing panics between taking this lock and the insertion of a whole value.
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = roots.get(arn) {
            return Some(Arc::clone(root));
        }
        if roots.len() >= MAX_ROOTS {
            roots.retain(|_, root| Arc::strong_count(root) > 1);
        }
        let asked = self.settings.asked(arn);
        let regional = self.clients.region(asked.region(), &self.settings);
        let shared = Shared {
            arn: asked,
            client: regional.client,
            line: Line::new(&self.settings, regional.calls, Arc::clone(&self.clock)),
            runtime: self.runtime.clone(),
        };
        let root = Arc::new(AwsKmsRoot::new(arn, shared));
        roots.insert(arn.clone(), Arc::clone(&root));
        Some(root)
    }
}

impl RootProvider for AwsKmsProvider {
    fn root(&self, id: &str) -> Option<Arc<dyn RootKey>> {
        let root = self.key(&KeyArn::from_root_id(id)?)?;
        Some(root)
    }
}
