//! `tenant`: tenants and their keys at a running gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vault_client::OperatorClient;
use vault_core::Error;
use vault_core::id::TenantId;
use vault_core::kms::Custody;
use vault_grpc::convert::custody;
use vault_proto::v1;

use super::remote::{self, Failed, Remote, said, time};

/// Tenants of one page.
const PAGE: i32 = 100;

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant and its first tenant key.
    Create {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        change: Change,
        /// The root keys that shall hold its key: an id, `split(A,B)` or `replicated(A,B,…)`; the gateway's default if it
        /// is not given.
        #[arg(long)]
        custody: Option<String>,
    },
    /// Show one tenant.
    Get {
        #[command(flatten)]
        remote: Remote,
        /// Its name.
        tenant: String,
    },
    /// List tenants in the order of their names.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Stop every data call for a tenant.
    Suspend {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        change: Change,
    },
    /// Ask for a suspension to be lifted: others have to approve it.
    Resume {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        change: Change,
    },
    /// Make a new version of the tenant key. Under other root keys, others have to approve it.
    Rotate {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        change: Change,
        /// The root keys that shall hold it; those that hold it now if it is not given.
        #[arg(long)]
        custody: Option<String>,
    },
    /// Make new versions of the data keys.
    RotateDataKeys {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        change: Change,
        /// Only those of this dataset.
        #[arg(long)]
        dataset: Option<String>,
    },
    /// Ask for all keys of a tenant, or all data keys of one person, to be destroyed for ever: others have to approve it.
    Shred {
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        change: Change,
        /// A file with the person whose data keys shall be destroyed; the whole tenant's keys if it is not given.
        #[arg(long)]
        subject_file: Option<PathBuf>,
    },
}

/// A change of a tenant, and why.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// The tenant's name.
    tenant: String,
    /// Why.
    #[arg(long)]
    reason: String,
}

impl Change {
    fn checked(&self) -> Result<(&str, &str), Error> {
        TenantId::parse(&self.tenant)?;
        Ok((&self.tenant, remote::reason(&self.reason)?))
    }
}

pub(super) fn run(command: TenantCommand) -> ExitCode {
    match command {
        TenantCommand::Create { remote, change, custody } => remote.call("make the tenant", async |client| {
            let (tenant, reason) = change.checked()?;
            let made = match custody.as_deref() {
                Some(custody) => client.create_tenant_under(tenant, parsed(custody)?, reason).await?,
                None => client.create_tenant(tenant, None, reason).await?,
            };
            Ok(shown(&made))
        }),
        TenantCommand::Get { remote, tenant } => remote.call("read the tenant", async |client| {
            TenantId::parse(&tenant)?;
            Ok(shown(&client.get_tenant(&tenant).await?))
        }),
        TenantCommand::List { remote } => remote.call("list tenants", list),
        TenantCommand::Suspend { remote, change } => remote.call("suspend the tenant", async |client| {
            let (tenant, reason) = change.checked()?;
            Ok(shown(&client.suspend_tenant(tenant, reason).await?))
        }),
        TenantCommand::Resume { remote, change } => remote.call("ask to resume the tenant", async |client| {
            let (tenant, reason) = change.checked()?;
            Ok(remote::approval(&client.resume_tenant(tenant, reason).await?))
        }),
        TenantCommand::Rotate { remote, change, custody } => remote.call("rotate the tenant key", async |client| {
            let (tenant, reason) = change.checked()?;
            let done = match custody.as_deref() {
                Some(custody) => client.rotate_tenant_key_to(tenant, parsed(custody)?, reason).await?,
                None => client.rotate_tenant_key(tenant, reason).await?,
            };
            Ok(done.approval.as_ref().map_or_else(|| done.tenant.as_ref().map_or(Value::Null, shown), remote::approval))
        }),
        TenantCommand::RotateDataKeys { remote, change, dataset } => {
            remote.call("rotate the data keys", async |client| {
                let (tenant, reason) = change.checked()?;
                let count = client.rotate_data_keys(tenant, dataset.as_deref(), reason).await?;
                Ok(json!({ "rotated_data_keys": count }))
            })
        }
        TenantCommand::Shred { remote, change, subject_file } => remote.call("ask to shred", async |client| {
            let (tenant, reason) = change.checked()?;
            let asked = match subject_file.as_deref() {
                Some(file) => client.shred_subject(tenant, &remote::subject(file)?, reason).await?,
                None => client.shred_tenant(tenant, reason).await?,
            };
            Ok(remote::approval(&asked))
        }),
    }
}

fn parsed(text: &str) -> Result<v1::Custody, Error> {
    let named = |_| Error::invalid("--custody", "must be a root key id, split(A,B), or replicated(A,B,…)");
    Custody::parse(text).map(|custody| custody::show(&custody)).map_err(named)
}

async fn list(client: &OperatorClient) -> Result<Value, Failed> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = client.list_tenants(PAGE, &token).await?;
        found.extend(page.tenants.iter().map(shown));
        token = page.next_page_token;
        if token.is_empty() {
            return Ok(Value::Array(found));
        }
    }
}

fn shown(tenant: &v1::Tenant) -> Value {
    let state = tenant.state().as_str_name().trim_start_matches("TENANT_STATE_").to_lowercase();
    let custody = tenant.custody.as_ref().and_then(|custody| custody::parse(custody).ok());
    let rotating = tenant.rotation.as_ref().filter(|rotation| rotation.end_time.is_none());
    said(&[
        ("tenant", json!(tenant.tenant)),
        ("state", json!(state)),
        ("active_key_version", json!(tenant.active_key_version)),
        ("custody", json!(custody.map(|custody| custody.to_string()))),
        ("created", time(tenant.create_time.as_ref())),
        ("updated", time(tenant.update_time.as_ref())),
        ("rewrapped_so_far", json!(rotating.map(|rotation| rotation.rewrapped_data_keys))),
        ("etag", json!(tenant.etag)),
    ])
}
