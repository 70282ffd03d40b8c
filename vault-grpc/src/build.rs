//! From a configuration to a vault. Everything that can be found wrong without writing is found before anything is
//! written.

mod roots;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vault_core::audit::{Log, LogSigner, Options, Recovery, has_signed_last};
use vault_core::bundle::{BundleRef, PolicyTrust, ProofCheck, Provers, SignedBundle, Signers};
use vault_core::fs::{Fs, OsFs};
use vault_core::id::Fingerprint;
use vault_core::keys::{CacheSettings, Keyring, KeyringParts};
use vault_core::policy::{Authorizer, BASELINE_SCHEMA, MAX_REGISTRY, PolicySet, Registry, Source};
use vault_core::principal::OperatorList;
use vault_core::store::{Anchor, Store};
use vault_core::time::SystemClock;
use vault_core::vault::{CharterStanding, VaultParts};
use vault_core::{Error, Vault};

pub use roots::{Absent, roots};

use crate::charter;
use crate::config::{self, Config, ConfigError, NamedFile, Policy, cannot_read};
use crate::end_users::EndUsers;
use crate::hardening;
use crate::operators;
use crate::release;
use crate::sinks::Sinks;
use crate::store;
use crate::telemetry::{Event, log};
use crate::tls::Materials;
use crate::witness::Witnesses;

/// Longest schema or policy file, in bytes.
const MAX_POLICY: u64 = 256 * 1024;
/// Most lines of a charter that a message repeats.
const MOST_CHANGES: usize = 20;

/// Why the gateway does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartError {
    /// The configuration or a file it names.
    Config(ConfigError),
    /// A part of the vault.
    Vault(Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Vault(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        Self::Vault(error)
    }
}

/// The policies and the registry that a configuration names.
///
/// # Errors
/// The first file that is not acceptable, with the line in it.
pub fn policies(config: &Config) -> Result<(PolicySet, Registry), ConfigError> {
    let schema = text(&config.policy.schema, MAX_POLICY)?;
    let files = &config.policy.policies;
    let texts = files.iter().map(|file| text(file, MAX_POLICY)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = files.iter().map(|file| file.path.display().to_string()).collect();
    let sources: Vec<Source<'_>> = names.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    let name = config.policy.schema.path.display().to_string();
    let set = PolicySet::load(Source { name: &name, text: &schema }, &sources).map_err(|error| match error {
        // The field is the file, as we named it, and the line in it.
        Error::Invalid { field, why } => ConfigError::new(field, why),
        other => config.policy.schema.error(other),
    })?;
    let registry = text(&config.policy.registry, MAX_REGISTRY as u64)?;
    let registry =
        Registry::parse(&registry, &config.data.trust_domain).map_err(|error| config.policy.registry.error(error))?;
    Ok((set, registry))
}

/// What a configuration demands of policy bundles.
///
/// # Errors
/// [`ConfigError`] if one of the signers or provers is the audit log itself: its key is in the gateway.
pub fn policy_trust(config: &Config, log: &LogSigner) -> Result<PolicyTrust, ConfigError> {
    let policy = &config.policy;
    let refuse = |why: &str| ConfigError::new(&policy.signers_place, why);
    let signers = match policy.signers.as_slice() {
        [] => Signers::none(),
        keys if keys.iter().any(|key| key.is_same_key(log.verifier())) => {
            return Err(refuse("names the audit log's own key, which the gateway holds"));
        }
        keys => Signers::new(keys.to_vec(), policy.quorum).map_err(|error| refuse(&error.to_string()))?,
    };
    let provers = match policy.provers.as_slice() {
        [] => None,
        keys if keys.iter().any(|key| key.is_same_key(log.verifier())) => {
            return Err(refuse("the provers name the audit log's own key, which the gateway holds"));
        }
        keys => Some(Provers::new(keys.to_vec()).map_err(|error| refuse(&error.to_string()))?),
    };
    let proof = proof_check(policy, provers)?;
    Ok(PolicyTrust { signers, workload_domain: config.data.trust_domain.clone(), proof })
}

/// What must be proved of bundles: by a prover elsewhere, or here.
#[cfg(feature = "prove")]
fn proof_check(policy: &Policy, provers: Option<Provers>) -> Result<Option<Arc<dyn ProofCheck>>, ConfigError> {
    Ok(match &policy.prove {
        Some(prove) => Some(Arc::new(crate::prover::OwnProof::new(prove.clone(), provers)?)),
        None => provers.map(|provers| Arc::new(provers) as _),
    })
}

/// What must be proved of bundles, by a prover elsewhere: this build has none, and a configuration that names a solver is
/// not read.
#[cfg(not(feature = "prove"))]
fn proof_check(_: &Policy, provers: Option<Provers>) -> Result<Option<Arc<dyn ProofCheck>>, ConfigError> {
    Ok(provers.map(|provers| Arc::new(provers) as _))
}

fn text(file: &NamedFile, most: u64) -> Result<String, ConfigError> {
    let len = fs::metadata(&file.path).map_err(|e| file.error(cannot_read(&e)))?.len();
    if len > most {
        return Err(file.error(format!("is longer than {most} bytes")));
    }
    fs::read_to_string(&file.path).map_err(|e| file.error(cannot_read(&e)))
}

/// The audit log's signing key.
///
/// # Errors
/// [`ConfigError`] if it is not there, damaged, or readable by others.
pub fn signer(config: &Config) -> Result<LogSigner, ConfigError> {
    let file = &config.audit_key;
    let mode = fs::metadata(&file.path).map_err(|e| file.error(cannot_read(&e)))?.mode();
    if mode & 0o077 != 0 {
        return Err(file.error(format!("mode {:04o} lets others read it; it must be 0600", mode & 0o7777)));
    }
    let load = |path: &Path| LogSigner::load(&OsFs, path, &config.log_origin());
    let signer = load(&file.path).map_err(|error| file.error(error))?;
    // A rotation that was cut off between the log and the file: the log says which key is in force.
    let next = next_key(config);
    if OsFs.exists(&next) {
        let next = load(&next).map_err(|error| file.error(format!("{}: {error}", next.display())))?;
        if has_signed_last(&OsFs, &config.audit_dir.path, next.verifier()).map_err(|error| file.error(error))? {
            return Ok(next);
        }
    }
    Ok(signer)
}

/// Where the next signing key of the audit log waits for its rotation.
pub fn next_key(config: &Config) -> PathBuf {
    let mut path = config.audit_key.path.clone();
    path.as_mut_os_string().push(".next");
    path
}

/// What `check` says is in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Policies in the set.
    pub policies: usize,
    /// Entries in the registry.
    pub workloads: usize,
}

/// Loads everything that a configuration names, opens neither store nor audit log, and writes nothing.
///
/// # Errors
/// The first thing that is not acceptable.
pub fn check(config: &Config) -> Result<Checked, ConfigError> {
    hardening::check_user(config)?;
    Materials::load(config)?;
    let (set, registry) = policies(config)?;
    roots(config, Absent::Refused)?;
    hardening::check_memory(config.environment)
        .map_err(|error| ConfigError::new(format!("{}, environment", config.file.display()), error.to_string()))?;
    store::check(config)?;
    let signer = signer(config)?;
    policy_trust(config, &signer)?;
    EndUsers::load(config)?;
    operators::list(config, signer.verifier())?;
    operators::keys(config)?;
    executable(config)?;
    Witnesses::load(config, signer.verifier())?;
    Sinks::load(config, signer.verifier())?;
    Ok(Checked { policies: set.ids().len(), workloads: registry.len() })
}

/// The digest of this executable, which is the release that the configuration names, if it names one.
///
/// # Errors
/// [`ConfigError`] if it is another, or cannot be read.
pub fn executable(config: &Config) -> Result<Fingerprint, ConfigError> {
    let own = release::own_digest().map_err(|why| ConfigError::new("this executable", why))?;
    if let Some(named) = &config.release {
        release::verify(&named.signature.path, &named.key, own).map_err(|error| named.signature.error(error))?;
    }
    Ok(own)
}

/// The store of a configuration, opened or made; `anchor` is what [`audit`] answered.
///
/// # Errors
/// [`StartError`]: what is wrong, and where.
pub fn store(
    config: &Config,
    roots: &Arc<vault_core::kms::Roots>,
    anchor: Option<Anchor>,
) -> Result<Arc<dyn Store>, StartError> {
    store::open(config, roots, anchor)
}

/// Refuses a configuration whose store is not there yet: opening it would make one.
///
/// # Errors
/// [`ConfigError`] naming it.
pub fn require_store(config: &Config) -> Result<(), ConfigError> {
    match &config.store {
        config::Store::Embedded(file) if !file.path.exists() => Err(file.error("there is no store")),
        _ => Ok(()),
    }
}

/// The keys of a configuration, whose store is opened for somebody who only counts what is in it; the audit log is left
/// alone.
///
/// # Errors
/// [`StartError`]: what is wrong, and where; also if a gateway has the store open.
pub fn keyring(config: &Config) -> Result<Arc<Keyring>, StartError> {
    require_store(config)?;
    let roots = roots(config, Absent::Tolerated)?;
    let store = store::open(config, &roots, None)?;
    Ok(keyring_of(config, store, roots)?)
}

fn keyring_of(
    config: &Config,
    store: Arc<dyn Store>,
    roots: Arc<vault_core::kms::Roots>,
) -> Result<Arc<Keyring>, Error> {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Keyring::new(KeyringParts {
        store,
        roots,
        instance: config.instance.clone(),
        cache: CacheSettings {
            capacity: config.cache.capacity,
            ttl_millis: millis(config.cache.ttl),
            idle_millis: millis(config.cache.idle),
        },
        clock: Arc::new(SystemClock),
    })
}

/// The audit log of a configuration, opened or made, and the state of the store that it recorded last.
///
/// # Errors
/// [`StartError`]: what is wrong, and where.
pub fn audit(config: &Config) -> Result<(Log, Option<Anchor>), StartError> {
    recovered(config).map(|(audit, recovery)| (audit, recovery.anchor))
}

fn recovered(config: &Config) -> Result<(Log, Recovery), StartError> {
    let signer = signer(config)?;
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    fs.create_dir_durable(&config.audit_dir.path).map_err(|e| config.audit_dir.error(e.kind()))?;
    let segments = &config.segments;
    let absolute = |archive: &NamedFile| std::path::absolute(&archive.path).map_err(|e| archive.error(e.kind()));
    let options = Options {
        segment_size: segments.size,
        segment_age: segments.age,
        archive: segments.archive.as_ref().map(absolute).transpose()?,
        await_cosignatures: config.witnesses.iter().any(|witness| witness.mandatory.is_some()),
        ..Options::default()
    };
    let (audit, recovery) = Log::open_with(fs, &config.audit_dir.path, signer, Arc::new(SystemClock), options)?;
    log(&Event::AuditOpened { entries: recovery.entries, cut: recovery.cut.map_or(0, |cut| cut.bytes) });
    Ok((audit, recovery))
}

/// A vault whose policies are still those of the configuration's files, whether or not they count; what is demanded of
/// bundles; and what opening the audit log found.
struct Assembled {
    vault: Vault,
    trust: PolicyTrust,
    recovery: Recovery,
}

fn assemble(config: &Config, (set, registry): (PolicySet, Registry), absent: Absent) -> Result<Assembled, StartError> {
    let roots = roots(config, absent)?;
    // Before anything is written.
    let trust = policy_trust(config, &signer(config)?)?;
    hardening::check_memory(config.environment)?;
    let (audit, recovery) = recovered(config)?;
    let store = store::open(config, &roots, recovery.anchor)?;
    let keys = keyring_of(config, store, roots)?;
    let authorizer = Authorizer::new(set, registry);
    let parts = VaultParts { authorizer, audit, keys, clock: Arc::new(SystemClock) };
    Ok(Assembled {
        vault: Vault::new(parts).with_lifecycle(config.lifecycle).with_approvals(config.approvals),
        trust,
        recovery,
    })
}

/// Waits for something that brings what threads it needs, on a thread that may block.
fn waited<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, StartError> {
    let waiting = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|_| Error::unavailable(vault_core::error::Dependency::Policy, "no thread to wait for the policies"))?;
    Ok(waiting.block_on(work)?)
}

/// Puts a policy bundle in force by its signatures alone, while no gateway serves.
///
/// # Errors
/// [`StartError`]: what is wrong, and where.
pub fn install_policy(config: &Config, signed: &SignedBundle) -> Result<BundleRef, StartError> {
    require_store(config)?;
    // The files count for nothing here, and may be gone.
    let nothing = (PolicySet::load(BASELINE_SCHEMA, &[])?, Registry::empty());
    let Assembled { vault, trust, recovery } = assemble(config, nothing, Absent::Tolerated)?;
    let installed = waited(vault.install_policy(&trust, recovery.policy, signed));
    vault.close()?;
    installed
}

/// Holds the configuration against the charter in force.
fn adopt_charter(config: &Config, vault: &Vault) -> Result<(), StartError> {
    let own = charter::of(config)?;
    match waited(vault.adopt_charter(&own, !config.charter_enforced))? {
        CharterStanding::InForce => Ok(()),
        CharterStanding::Differs(changes) => Err(differs(config, &changes).into()),
    }
}

/// Says how a configuration differs from what operators agreed on.
pub(crate) fn differs(config: &Config, changes: &[String]) -> ConfigError {
    let shown: Vec<&str> = changes.iter().take(MOST_CHANGES).map(String::as_str).collect();
    let more = if changes.len() > MOST_CHANGES { "\n  …" } else { "" };
    let why = format!(
        "differs from the charter in force, which only an approval changes (docs/charter.md):\n  {}{more}",
        shown.join("\n  ")
    );
    ConfigError::new(config.file.display().to_string(), why)
}

/// The vault of a configuration: opens store and audit log, or makes them where there are none.
///
/// # Errors
/// [`StartError`]: what is wrong, and where.
pub fn vault(config: &Config) -> Result<Vault, StartError> {
    let signer = signer(config)?;
    vault_for(config, &operators::list(config, signer.verifier())?)
}

/// The same, for these operators. A list that is older than one that was in force before is refused.
///
/// # Errors
/// [`StartError`]: what is wrong, and where.
pub fn vault_for(config: &Config, operators: &OperatorList) -> Result<Vault, StartError> {
    let Assembled { vault, trust, recovery } = assemble(config, policies(config)?, Absent::Tolerated)?;
    if let Some(named) = &config.operators.list
        && let Err(error) = operators.check_follows(recovery.operators)
    {
        vault.close()?;
        return Err(named.file.error(error).into());
    }
    let unsigned = trust.signers.is_empty();
    let vault = waited(vault.adopt_policies(trust, recovery.policy))?;
    adopt_charter(config, &vault)?;
    match vault.policy_bundle() {
        Some(bundle) => log(&Event::Policies { version: bundle.version, epoch: vault.authorizer().epoch() }),
        None if unsigned => log(&Event::Notice(
            "no policy signers are configured: whoever can write the policy files and send SIGHUP decides",
        )),
        None => log(&Event::Notice("no policy bundle is in force yet: the files of the configuration decide")),
    }
    Ok(vault)
}
