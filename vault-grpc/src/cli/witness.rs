//! `witness`: a witness that anyone can run, elsewhere than the logs that it watches.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use vault_core::Error;
use vault_core::audit::{Witness, WitnessSigner, WitnessVerifier};
use vault_core::error::Dependency;
use vault_core::fs::{Fs, OsFs};
use vault_core::principal::certificates_from_pem;
use vault_grpc::telemetry::{Event, log};
use zeroize::Zeroizing;

use super::commands::{keys_of, text_of};
use super::print;

/// Longest PEM file, in bytes.
const MAX_PEM: u64 = 64 * 1024;
const FILES: &dyn Fs = &OsFs;
const KEY: &str = "witness.key";
const VKEY: &str = "witness.vkey";
const STATE: &str = "state";

#[derive(Debug, Subcommand)]
pub(super) enum WitnessCommand {
    /// Make a witness: its key, its verifier key, and the directory of its state.
    Init {
        /// The directory, which must not exist yet.
        #[arg(long)]
        dir: PathBuf,
        /// Its name, for example `witness.example/w1`: 1 to 200 of `a-z A-Z 0-9 . / - _ :`.
        #[arg(long)]
        name: String,
    },
    /// Cosign the checkpoints of logs that only grow (C2SP tlog-witness), until the process is ended.
    Serve {
        /// The directory that `init` made.
        #[arg(long)]
        dir: PathBuf,
        /// A log's verifier key, or a file with it. May be given more than once.
        #[arg(long, required = true)]
        log: Vec<String>,
        /// Where to listen; without a certificate, on loopback only.
        #[arg(long)]
        listen: SocketAddr,
        /// The witness's certificate and its intermediates, leaf first (PEM).
        #[arg(long, requires = "key")]
        certificate: Option<PathBuf>,
        /// Its private key (PEM, mode 0600).
        #[arg(long, requires = "certificate")]
        key: Option<PathBuf>,
    },
}

pub(super) fn run(command: WitnessCommand) -> ExitCode {
    let (what, done) = match command {
        WitnessCommand::Init { dir, name } => ("make a witness", init(&dir, &name)),
        WitnessCommand::Serve { dir, log, listen, certificate, key } => {
            ("be a witness", serve(&dir, &log, listen, certificate.zip(key)))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&Event::Failed { what, error });
            ExitCode::FAILURE
        }
    }
}

fn init(dir: &Path, name: &str) -> Result<(), Error> {
    if FILES.exists(dir) {
        return Err(Error::AlreadyExists("witness's directory"));
    }
    let unwritable = |_| Error::unavailable(Dependency::Audit, "the witness's directory cannot be written");
    FILES.create_dir_durable(&dir.join(STATE)).map_err(unwritable)?;
    let signer = WitnessSigner::create(FILES, &dir.join(KEY), name)?;
    let vkey = signer.verifier().vkey();
    FILES.replace(&dir.join(VKEY), format!("{vkey}\n").as_bytes()).map_err(unwritable)?;
    print::line(vkey);
    Ok(())
}

fn serve(dir: &Path, logs: &[String], listen: SocketAddr, tls: Option<(PathBuf, PathBuf)>) -> Result<(), Error> {
    if tls.is_none() && !listen.ip().is_loopback() {
        return Err(Error::invalid("--listen", "must be a loopback address where there is no --certificate"));
    }
    vault_grpc::hardening::apply()?;
    let verifier = WitnessVerifier::parse(&text_of("--dir", &dir.join(VKEY), MAX_PEM)?)?;
    let signer = WitnessSigner::load(FILES, &dir.join(KEY), verifier.name())?;
    if signer.verifier() != &verifier {
        return Err(Error::corrupt(VKEY, "is not that of the witness's key"));
    }
    // A file lists all keys of a log whose key was rotated.
    let logs = logs.iter().map(|log| keys_of(log)).collect::<Result<Vec<_>, _>>()?;
    let logs = logs.into_iter().flatten().map(|key| key.verifier).collect();
    let state = dir.join(STATE);
    // Two that share a state could cosign two histories.
    let _lock = FILES.lock(&dir.join("lock")).map_err(|_| Error::FailedPrecondition("the witness runs already"))?;
    let witness = Arc::new(Witness::open(Arc::new(OsFs), &state, signer, logs)?);
    let tls = tls.map(|(certificate, key)| server(&certificate, &key)).transpose()?;
    let no_runtime = |_| Error::unavailable(Dependency::Audit, "cannot listen there");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.map_err(no_runtime)?;
        let address = listener.local_addr().map_err(no_runtime)?;
        print::line(format_args!("{} listens on {address}", witness.verifier().name()));
        vault_grpc::witness::serve(listener, tls, witness).await;
        Ok(())
    })
}

fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, Error> {
    let chain = certificates_from_pem(text_of("--certificate", certificate, MAX_PEM)?.as_bytes())
        .map_err(|_| Error::invalid("--certificate", "holds no certificates in PEM"))?;
    let mode = FILES.open(key, vault_core::fs::Open::Read).and_then(|file| file.mode());
    if mode.map_or(true, |mode| mode & 0o077 != 0) {
        return Err(Error::invalid("--key", "cannot be read, or others may read it: set its mode to 0600"));
    }
    let pem = Zeroizing::new(text_of("--key", key, MAX_PEM)?);
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| Error::invalid("--key", "holds no private key in PEM"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|_| Error::invalid("--certificate", "cannot be used for TLS 1.3 with this key"))?;
    Ok(Arc::new(config))
}
