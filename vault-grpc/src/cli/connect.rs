//! How commands that ask a running gateway reach it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use vault_client::{ClientError, Endpoint, OperatorClient};
use vault_grpc::config::{ConfigError, cannot_read};
use vault_grpc::telemetry::{Event, log};

/// Longest file with certificates or a key, in bytes.
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Connect {
    /// The control plane of a running gateway, https://HOST:PORT.
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
    /// Connects to the control plane.
    pub(super) async fn operator(&self) -> Result<OperatorClient, Unanswered> {
        let refuse = |why: &str| Unanswered::Given(ConfigError::new("--gateway", why));
        let url = self.gateway.as_deref().unwrap_or_default();
        let address = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
        let address = address.ok_or_else(|| refuse("must be https://HOST:PORT"))?;
        let (host, port) = address.rsplit_once(':').ok_or_else(|| refuse("must name a port: https://HOST:PORT"))?;
        if host.is_empty() || port.parse::<u16>().is_err() || address.contains('/') {
            return Err(refuse("must be https://HOST:PORT, without a path"));
        }
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let ca = read("--ca", self.ca.as_deref())?;
        let (cert, key) = (read("--cert", self.cert.as_deref())?, read("--key", self.key.as_deref())?);
        Ok(OperatorClient::connect(&Endpoint::new(address, name, ca, cert, key)).await?)
    }
}
