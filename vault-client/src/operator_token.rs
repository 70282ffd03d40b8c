//! The token that an operator brings with each call, beside the certificate.

use std::fmt;
use std::sync::Arc;

use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};
use zeroize::Zeroizing;

/// A channel whose calls bring the token.
pub(crate) type ControlChannel = InterceptedService<Channel, OperatorTokens>;

/// Where an operator's access token comes from: asked before each call, so that it can give a new one when the old one
/// ends or the sign-in behind it is no longer fresh. It must not block; one that fetches keeps what it has got last.
#[derive(Clone, Default)]
pub struct OperatorTokens(Option<Arc<dyn Fn() -> Option<Zeroizing<String>> + Send + Sync>>);

impl OperatorTokens {
    /// Tokens as this gives them; calls that it gives none for go without.
    pub fn new(provider: impl Fn() -> Option<Zeroizing<String>> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(provider)))
    }

    /// Always the same one.
    pub fn fixed(token: impl Into<String>) -> Self {
        let token = Zeroizing::new(token.into());
        Self::new(move || Some(token.clone()))
    }
}

/// Shows nothing of it.
impl fmt::Debug for OperatorTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorTokens(…)")
    }
}

impl Interceptor for OperatorTokens {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = self.0.as_ref().and_then(|provider| provider()) {
            let value = Zeroizing::new(format!("Bearer {}", token.as_str()));
            let mut value: MetadataValue<_> =
                value.parse().map_err(|_| Status::invalid_argument("the operator's token is not visible ASCII"))?;
            // Not in any log of headers, and in no table of header compression.
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}
