//! The files of a policy set, named one by one or by a gateway's configuration.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use vault_core::policy::{BASELINE_SCHEMA, MAX_REGISTRY, Source};
use vault_grpc::config::{Config, ConfigError, cannot_read};

/// Longest schema, policy, test or record file, in bytes: beyond what any loader takes, so that the loader says so.
const MAX_TEXT: u64 = 2 * 1024 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct Files {
    /// A gateway's configuration: the schema, policies and registry that it names.
    #[arg(long, required_unless_present = "policies", conflicts_with_all = ["schema", "policies", "registry"])]
    config: Option<PathBuf>,
    /// The Cedar schema; without it, the one that comes with this version.
    #[arg(long)]
    schema: Option<PathBuf>,
    /// Policy files.
    #[arg(long, num_args = 1..)]
    policies: Vec<PathBuf>,
    /// The workload registry.
    #[arg(long, requires = "workload_domain")]
    registry: Option<PathBuf>,
    /// The trust domain of the registry's workloads.
    #[arg(long)]
    workload_domain: Option<String>,
}

/// A text and what to call it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) text: String,
}

impl Named {
    pub(super) fn source(&self) -> Source<'_> {
        Source { name: &self.name, text: &self.text }
    }
}

/// The texts of a policy set.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) schema: Named,
    pub(super) policies: Vec<Named>,
    /// With the trust domain of its workloads.
    pub(super) registry: Option<(Named, String)>,
}

impl Texts {
    pub(super) fn policies(&self) -> Vec<Source<'_>> {
        self.policies.iter().map(Named::source).collect()
    }
}

impl Files {
    pub(super) fn read(&self) -> Result<Texts, ConfigError> {
        if let Some(config) = &self.config {
            let config = Config::load(config)?;
            let policies = config.policy.policies.iter().map(|file| read(&file.path));
            return Ok(Texts {
                schema: read(&config.policy.schema.path)?,
                policies: policies.collect::<Result<_, _>>()?,
                registry: Some((read(&config.policy.registry.path)?, config.data.trust_domain)),
            });
        }
        let domain = self.workload_domain.clone().unwrap_or_default();
        let registry = self.registry.as_ref().map(|registry| Ok((read(registry)?, domain))).transpose()?;
        Ok(Texts { schema: schema(self.schema.as_deref())?, policies: all(&self.policies)?, registry })
    }
}

/// The schema of a file, or the one that comes with this version.
pub(super) fn schema(file: Option<&Path>) -> Result<Named, ConfigError> {
    let built_in = || Named { name: BASELINE_SCHEMA.name.to_owned(), text: BASELINE_SCHEMA.text.to_owned() };
    file.map_or_else(|| Ok(built_in()), read)
}

pub(super) fn all(files: &[PathBuf]) -> Result<Vec<Named>, ConfigError> {
    files.iter().map(|file| read(file)).collect()
}

pub(super) fn read(file: &Path) -> Result<Named, ConfigError> {
    let name = file.display().to_string();
    let unreadable = |error: &std::io::Error| ConfigError::new(&name, cannot_read(error));
    let len = fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if len > MAX_TEXT.max(MAX_REGISTRY as u64) {
        return Err(ConfigError::new(&name, "the file is too long"));
    }
    let text = fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    Ok(Named { name, text })
}
