//! One KMS key as a root key.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;
use zeroize::Zeroizing;

use super::answer::{self, Failure, MAX_CIPHERTEXT, failure};
use super::arn::KeyArn;
use super::line::Line;
use crate::kms::{EncryptionContext, Generated, Layer, MAX_INNER, RootError, RootKey};
use crate::secret::Key32;
use crate::store::BoxFuture;

const MISUSED: RootError = RootError::Unavailable("a root key was asked to wrap something as what it is not");

/// What a call needs, and takes along: calls run as tasks of their own.
pub(super) struct Shared {
    /// The key that is asked: the one that the root key is named after, or its replica in the home region.
    pub(super) arn: KeyArn,
    pub(super) client: Client,
    pub(super) line: Line,
    pub(super) runtime: Handle,
}

/// A KMS key that wraps tenant keys; [`super::AwsKmsProvider`] gives it.
///
/// Its futures may be polled by any executor: the calls themselves run on the Tokio runtime that the provider was
/// given, and stop when their future is dropped.
pub struct AwsKmsRoot {
    id: String,
    shared: Arc<Shared>,
}

impl fmt::Debug for AwsKmsRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsKmsRoot({})", self.id)
    }
}

type Pairs = HashMap<String, String>;

/// A task that stops when nobody waits for it any more.
struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Shared {
    async fn generate(&self, pairs: &Pairs) -> Result<Generated, Failure> {
        let call = self.client.generate_data_key().key_id(self.arn.as_str()).key_spec(DataKeySpec::Aes256);
        let answer = call.set_encryption_context(Some(pairs.clone())).send().await.map_err(|e| failure(&e))?;
        // Before anything can refuse the answer: from here on the plaintext is wiped.
        let plaintext = answer::plaintext(answer.plaintext);
        answer::check_key(&self.arn, answer.key_id.as_deref())?;
        Ok(Generated { key: answer::key(&plaintext)?, wrapped: answer::ciphertext(answer.ciphertext_blob)? })
    }

    async fn encrypt(&self, plaintext: Blob, pairs: &Pairs) -> Result<Vec<u8>, Failure> {
        let call = self.client.encrypt().key_id(self.arn.as_str()).plaintext(plaintext);
        let answer = call.set_encryption_context(Some(pairs.clone())).send().await.map_err(|e| failure(&e))?;
        answer::check_key(&self.arn, answer.key_id.as_deref())?;
        answer::ciphertext(answer.ciphertext_blob)
    }

    async fn decrypt(&self, ciphertext: &[u8], pairs: &Pairs) -> Result<Zeroizing<Vec<u8>>, Failure> {
        // With the key's ARN: without it KMS would use whatever key the ciphertext names.
        let call = self.client.decrypt().key_id(self.arn.as_str()).ciphertext_blob(Blob::new(ciphertext));
        let answer = call.set_encryption_context(Some(pairs.clone())).send().await.map_err(|e| failure(&e))?;
        let plaintext = answer::plaintext(answer.plaintext);
        answer::check_key(&self.arn, answer.key_id.as_deref())?;
        Ok(plaintext)
    }
}

impl AwsKmsRoot {
    pub(super) fn new(named: &KeyArn, shared: Shared) -> Self {
        Self { id: named.root_id(), shared: Arc::new(shared) }
    }

    /// The key that is asked: the one in the id, or its replica in the home region.
    pub fn arn(&self) -> &KeyArn {
        &self.shared.arn
    }

    /// Whether the breaker is open: calls are answered `UNAVAILABLE` at once, without asking AWS.
    pub fn is_resting(&self) -> bool {
        self.shared.line.is_open()
    }

    fn run<'a, T, F>(&self, work: impl FnOnce(Arc<Shared>) -> F + Send + 'a) -> BoxFuture<'a, Result<T, RootError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RootError>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let runtime = shared.runtime.clone();
            // The SDK traces requests and answers, and with `LOG_SIGNABLE_BODY` or `LOG_SENSITIVE_BODIES` in the
            // environment their bodies too, keys included, for whoever traces everything. Here nothing is traced.
            let task = Task(runtime.spawn(work(shared).with_subscriber(NoSubscriber::new())));
            task.await.unwrap_or(Err(RootError::Unavailable("the call to AWS KMS was broken off")))
        })
    }
}

fn pairs(context: &EncryptionContext) -> Pairs {
    context.pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn refused<T: Send + 'static>(error: RootError) -> BoxFuture<'static, Result<T, RootError>> {
    Box::pin(std::future::ready(Err(error)))
}

impl RootKey for AwsKmsRoot {
    fn id(&self) -> &str {
        &self.id
    }

    fn generate<'a>(&'a self, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Generated, RootError>> {
        if context.layer == Layer::Outer {
            return refused(MISUSED);
        }
        let pairs = pairs(context);
        self.run(async move |shared: Arc<Shared>| shared.line.call(|| shared.generate(&pairs)).await)
    }

    fn wrap<'a>(&'a self, key: &'a Key32, context: &'a EncryptionContext) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        let Ok(key) = key.expose() else { return refused(RootError::Unavailable("the key is not there any more")) };
        if context.layer == Layer::Outer {
            return refused(MISUSED);
        }
        let (pairs, key) = (pairs(context), Zeroizing::new(key.to_vec()));
        self.run(async move |shared: Arc<Shared>| {
            shared.line.call(|| shared.encrypt(Blob::new(key.as_slice()), &pairs)).await
        })
    }

    fn seal<'a>(
        &'a self,
        inner: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        if inner.is_empty() || inner.len() > MAX_INNER || context.layer != Layer::Outer {
            return refused(MISUSED);
        }
        let (pairs, inner) = (pairs(context), inner.to_vec());
        self.run(async move |shared: Arc<Shared>| {
            shared.line.call(|| shared.encrypt(Blob::new(inner.as_slice()), &pairs)).await
        })
    }

    fn open<'a>(
        &'a self,
        sealed: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Vec<u8>, RootError>> {
        if !is_ciphertext(sealed) || context.layer != Layer::Outer {
            return refused(RootError::NotMine);
        }
        let (pairs, sealed) = (pairs(context), sealed.to_vec());
        self.run(async move |shared: Arc<Shared>| {
            let opened = shared.line.call(|| shared.decrypt(&sealed, &pairs)).await?;
            // A wrapping is no secret: it leaves its wiped buffer.
            Ok(opened.to_vec())
        })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        context: &'a EncryptionContext,
    ) -> BoxFuture<'a, Result<Key32, RootError>> {
        if !is_ciphertext(wrapped) || context.layer == Layer::Outer {
            return refused(RootError::NotMine);
        }
        let (pairs, wrapped) = (pairs(context), wrapped.to_vec());
        self.run(async move |shared: Arc<Shared>| {
            let unwrapped = || async { answer::key(&shared.decrypt(&wrapped, &pairs).await?) };
            shared.line.call(unwrapped).await
        })
    }
}

/// Whether KMS would so much as look at it.
fn is_ciphertext(bytes: &[u8]) -> bool {
    (1..=MAX_CIPHERTEXT).contains(&bytes.len())
}
