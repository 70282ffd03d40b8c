//! How commands that ask a running gateway reach it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use vault_client::{ClientError, Endpoint};
use vault_grpc::config::{ConfigError, cannot_read};
use vault_grpc::telemetry::{Event, log};
use vault_proto::v1::scorecard_service_client::ScorecardServiceClient;
use vault_proto::v1::{GetScorecardRequest, Scorecard};
use zeroize::Zeroizing;

/// Longest file with certificates, a key or a token, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How long a gateway may take that reads its log for the first time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer, in bytes.
const MAX_ANSWER: usize = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct Connect {
    /// The control plane of a running gateway: HOST:PORT, or https://HOST:PORT.
    #[arg(long, requires_all = ["cert", "key", "ca"])]
    gateway: Option<String>,
    /// The operator's certificate and its intermediates, leaf first (PEM).
    #[arg(long, requires = "gateway")]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, requires = "gateway")]
    key: Option<PathBuf>,
    /// The certificates that vouch for the gateway, and no others (PEM).
    #[arg(long, requires = "gateway")]
    ca: Option<PathBuf>,
    /// The name or address that the gateway's certificate carries; the host of `--gateway` if it is not given.
    #[arg(long, requires = "gateway")]
    server_name: Option<String>,
    /// A file with the operator's token, which goes along as `authorization: Bearer`.
    #[arg(long, requires = "gateway")]
    token_file: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// What was given.
    Given(ConfigError),
    /// The gateway, or the way to it.
    Client(Box<ClientError>),
}

impl From<ClientError> for Unanswered {
    fn from(error: ClientError) -> Self {
        Self::Client(Box::new(error))
    }
}

impl Unanswered {
    /// Says why in a log line.
    pub(super) fn tell(self) {
        match self {
            Self::Given(error) => log(&Event::Misconfigured(error)),
            Self::Client(error) => {
                let code = format!("{:?}", error.code());
                let fields: Vec<_> =
                    error.violations().iter().map(|one| format!("{}: {}", one.field, one.why)).collect();
                let why = [&[error.message().to_owned()][..], &fields].concat().join("; ");
                log(&Event::Misconfigured(ConfigError::new(format!("--gateway, {code}"), why)));
            }
        }
    }
}

fn read(option: &'static str, file: Option<&Path>) -> Result<Vec<u8>, Unanswered> {
    let refuse = |why: String| Unanswered::Given(ConfigError::new(option, why));
    let file = file.ok_or_else(|| refuse("is required with --gateway".to_owned()))?;
    let len = fs::metadata(file).map_err(|error| refuse(cannot_read(&error)))?.len();
    if len > MAX_FILE {
        return Err(refuse("is longer than 1 MiB".to_owned()));
    }
    fs::read(file).map_err(|error| refuse(cannot_read(&error)))
}

impl Connect {
    /// Calls the control plane's scorecard service.
    pub(super) async fn scorecard(&self, message: GetScorecardRequest) -> Result<Scorecard, Unanswered> {
        let (channel, bearer) = (self.channel().await?, self.bearer()?);
        let with_token = move |mut request: Request<()>| {
            if let Some(bearer) = &bearer {
                request.metadata_mut().insert("authorization", bearer.clone());
            }
            Ok(request)
        };
        let client = ScorecardServiceClient::with_interceptor(channel, with_token);
        let mut client = client.max_decoding_message_size(MAX_ANSWER);
        let mut request = Request::new(message);
        request.set_timeout(PATIENCE);
        let answer = client.get_scorecard(request).await.map_err(ClientError::from)?.into_inner();
        let lacks = || Unanswered::Given(ConfigError::new("--gateway", "the answer lacks its scorecard"));
        answer.scorecard.ok_or_else(lacks)
    }

    async fn channel(&self) -> Result<Channel, Unanswered> {
        let refuse = |why: &str| Unanswered::Given(ConfigError::new("--gateway", why));
        let given = self.gateway.as_deref().unwrap_or_default();
        let address = given.strip_prefix("https://").unwrap_or(given).trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').ok_or_else(|| refuse("must name a port: HOST:PORT"))?;
        if host.is_empty() || port.parse::<u16>().is_err() || host.contains('/') {
            return Err(refuse("must be HOST:PORT or https://HOST:PORT"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = self.server_name.as_deref().unwrap_or(host);
        let (ca, cert) = (read("--ca", self.ca.as_deref())?, read("--cert", self.cert.as_deref())?);
        let key = Zeroizing::new(read("--key", self.key.as_deref())?);
        Ok(Endpoint::new(address, name, ca, cert, key.as_slice()).channel().await?)
    }

    fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, Unanswered> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let bytes = Zeroizing::new(read("--token-file", Some(file))?);
        let text = str::from_utf8(&bytes).map(|text| Zeroizing::new(format!("Bearer {}", text.trim())));
        let refuse = || Unanswered::Given(ConfigError::new("--token-file", "holds no token"));
        let mut bearer: MetadataValue<Ascii> = text.ok().and_then(|text| text.parse().ok()).ok_or_else(refuse)?;
        bearer.set_sensitive(true);
        Ok(Some(bearer))
    }
}
