//! The configuration's charter: those of its settings that could let more through, as lines of text. What only bounds,
//! places or tunes is not among them.

use std::sync::Weak;
use std::time::Duration;

use ring::digest;
use vault_core::Vault;
use vault_core::audit::LogVerifier;
use vault_core::charter::Charter;
use vault_core::id::Fingerprint;
use vault_core::principal::{Binding, IssuerSettings, IssuerTenants, certificates_from_pem};
use vault_core::vault::ApprovalSettings;

use crate::config::{
    Config, ConfigError, CustodyNames, Demand, IssuerKeys, Listener, LogSink, LogWitness, NamedFile, Operators,
    PinnedUrl, Root, SinkTarget, Syslog,
};
use crate::operators;
use crate::telemetry::{Event, log};
use crate::tls::files::{MAX_PEM, read};

type Lines = Vec<(String, String)>;

/// The charter of a configuration and the files it names.
///
/// # Errors
/// [`ConfigError`] if a file cannot be read, or a setting is longer than a charter's line.
pub fn of(config: &Config) -> Result<Charter, ConfigError> {
    let mut lines = Lines::new();
    let mut set = |name: &str, value: String| lines.push((name.to_owned(), value));
    set("environment", config.environment.name().to_owned());
    set("instance", plain(&config.instance));
    let demand = |demand| if demand == Demand::Required { "required" } else { "best-effort" };
    set("hardening.seccomp", demand(config.hardening.seccomp).to_owned());
    set("hardening.landlock", demand(config.hardening.landlock).to_owned());
    for file in &config.hardening.executables {
        set("hardening.executable", plain(&file.path.display().to_string()));
    }
    set("lifecycle.approval_ms", config.lifecycle.approval_millis.to_string());
    approvals(&config.approvals).into_iter().for_each(|(name, value)| set(name, value));
    set("policy.quorum", config.policy.quorum.to_string());
    config.policy.signers.iter().for_each(|key| set("policy.signer", verifier(key)));
    config.policy.provers.iter().for_each(|key| set("policy.prover", verifier(key)));
    set("policy.proves_itself", if config.policy.prove.is_some() { "yes" } else { "no" }.to_owned());
    if let Some(release) = &config.release {
        set("release.key", plain(&release.key.to_string()));
    }
    listener("data", &config.data, &mut lines)?;
    listener("control", &config.control, &mut lines)?;
    roots(config, &mut lines);
    for issuer in &config.end_users {
        lines.push(("end_users.issuer".to_owned(), issuer_line(&issuer.settings, &issuer.keys)?));
    }
    operators(config, &mut lines)?;
    for witness in &config.witnesses {
        lines.push(("audit.witness".to_owned(), witness_line(witness)?));
    }
    for sink in &config.sinks {
        lines.push((format!("audit.sink.{}", plain(&sink.settings.name)), sink_line(sink)?));
    }
    Charter::new(lines).map_err(|error| ConfigError::new(config.file.display().to_string(), error.to_string()))
}

/// How many have to agree, and how long a shred can be cancelled.
fn approvals(settings: &ApprovalSettings) -> Vec<(&'static str, String)> {
    // Taken apart, so that what is added has to be thought of here.
    let ApprovalSettings {
        required,
        shred_subject,
        shred_tenant,
        request_grant,
        activate_policy,
        resume_tenant,
        change_custody,
        change_charter,
        shred_delay_millis,
    } = settings;
    let special = [
        ("approvals.shred_subject", shred_subject),
        ("approvals.shred_tenant", shred_tenant),
        ("approvals.request_grant", request_grant),
        ("approvals.activate_policy", activate_policy),
        ("approvals.resume_tenant", resume_tenant),
        ("approvals.change_custody", change_custody),
        ("approvals.change_charter", change_charter),
    ];
    // What counts for each, whether it is said there or in the first line.
    let special = special.into_iter().map(|(name, value)| (name, value.unwrap_or(*required).to_string()));
    let all =
        [("approvals.required", required.to_string()), ("approvals.shred_delay_ms", shred_delay_millis.to_string())];
    all.into_iter().chain(special).collect()
}

/// How often it is asked which charter is in force.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Says once when another charter came into force than the one that this gateway serves with.
pub(crate) async fn follow(vault: Weak<Vault>) {
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(vault) = vault.upgrade() else { return };
        // A store that is away is told by others.
        if vault.watch_charter().await.is_ok() && vault.charter_superseded() != told {
            told = !told;
            if told {
                log(&Event::Warning("another charter came into force: restart with the configuration it is of"));
            }
        }
    }
}

/// For Prometheus.
pub(crate) fn render(vault: &Vault) -> String {
    let superseded = u8::from(vault.charter_superseded());
    format!(
        "# HELP blindvault_charter_superseded 1 if another charter is in force than the one that this gateway serves with\n\
         # TYPE blindvault_charter_superseded gauge\nblindvault_charter_superseded {superseded}\n"
    )
}

/// Makes sure that files were not changed between their reading for the charter and their loading.
///
/// # Errors
/// [`ConfigError`] if the charter is another by now.
pub(crate) fn unchanged(config: &Config, before: &Charter) -> Result<(), ConfigError> {
    if of(config)? == *before {
        return Ok(());
    }
    Err(ConfigError::new(
        config.file.display().to_string(),
        "files that it names changed while they were read; try again",
    ))
}

/// As one word of printable ASCII: other bytes, spaces and `%` become `%xx`.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02x}"),
        }
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

fn sha256(bytes: &[u8]) -> Fingerprint {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    Fingerprint(digest)
}

fn verifier(key: &LogVerifier) -> String {
    plain(&key.vkey())
}

fn list(words: impl IntoIterator<Item = String>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| plain(&word).replace(',', "%2c")).collect();
    words.sort();
    words.join(",")
}

/// Who operates the vault: who says so, what they said, and what else an operator has to show.
fn operators(config: &Config, lines: &mut Lines) -> Result<(), ConfigError> {
    let Operators { list, issuers, max_certificate_lifetime } = &config.operators;
    if let Some(named) = list {
        lines.push(("operators.owner".to_owned(), verifier(&named.owner)));
        let list = operators::read(config)?.reference();
        lines.push(("operators.list".to_owned(), format!("version={} sha256:{}", list.version, list.digest)));
    }
    let lifetime = max_certificate_lifetime.map_or_else(|| "none".to_owned(), |most| most.as_secs().to_string());
    lines.push(("operators.max_certificate_lifetime_s".to_owned(), lifetime));
    for issuer in issuers {
        lines.push(("operators.issuer".to_owned(), issuer_line(&issuer.settings, &issuer.keys)?));
    }
    Ok(())
}

/// Who may vouch for a plane's callers: one line for each certificate of the file.
fn listener(plane: &str, listener: &Listener, lines: &mut Lines) -> Result<(), ConfigError> {
    lines.push((format!("{plane}.trust_domain"), plain(&listener.trust_domain)));
    lines.push((format!("{plane}.revocation"), if listener.crls.is_empty() { "none" } else { "lists" }.to_owned()));
    for digest in certificates(&listener.client_ca)? {
        lines.push((format!("{plane}.client_ca"), format!("sha256:{digest}")));
    }
    Ok(())
}

fn certificates(file: &NamedFile) -> Result<Vec<Fingerprint>, ConfigError> {
    let found = certificates_from_pem(&read(file, MAX_PEM, false)?).map_err(|error| file.error(error))?;
    Ok(found.iter().map(|certificate| sha256(certificate)).collect())
}

fn roots(config: &Config, lines: &mut Lines) {
    for named in &config.roots.roots {
        let value = match &named.root {
            Root::Local(file) => format!("local {}", plain(&file.path.display().to_string())),
            Root::Pkcs11(hsm) => {
                let module = plain(&hsm.module.path.display().to_string());
                format!("pkcs11 module={module} token={} key={}", plain(&hsm.token), plain(&hsm.key))
            }
            #[cfg(feature = "aws")]
            Root::AwsKms(arn) => format!("aws-kms {}", plain(&arn.to_string())),
        };
        lines.push((format!("roots.{}", plain(&named.name)), value));
    }
    let custody = match &config.roots.default {
        CustodyNames::Single(one) => format!("single {}", plain(one)),
        // The order is part of it: inner, then outer.
        CustodyNames::Split(inner, outer) => format!("split {} {}", plain(inner), plain(outer)),
        CustodyNames::Replicated(names) => format!("replicated {}", list(names.iter().cloned())),
    };
    lines.push(("custody.default".to_owned(), custody));
}

/// A host and who may vouch for its name.
fn pinned(url: &PinnedUrl) -> Result<String, ConfigError> {
    let at = format!("{}:{}{}", plain(&url.host), url.port, plain(&url.path));
    Ok(match &url.roots {
        Some(file) => format!("https://{at} roots={}", list(certificates(file)?.iter().map(ToString::to_string))),
        None => format!("http://{at}"),
    })
}

fn issuer_line(issuer: &IssuerSettings, keys: &IssuerKeys) -> Result<String, ConfigError> {
    // Taken apart, so that what is added has to be thought of here.
    let IssuerSettings {
        issuer,
        audiences,
        tenants,
        algorithms,
        typ,
        tenant_claim,
        roles_claim,
        mfa_amr,
        mfa_acr,
        mfa_fresh_millis,
        skew_millis,
        max_lifetime_millis,
        binding,
    } = issuer;
    let tenants = match tenants {
        IssuerTenants::Any => "*".to_owned(),
        IssuerTenants::Only(tenants) => list(tenants.iter().map(ToString::to_string)),
    };
    let binding = match binding {
        Binding::Required => "required",
        Binding::IfPresent => "if-present",
    };
    let keys = match keys {
        IssuerKeys::File(file) => format!("file sha256:{}", sha256(&read(file, MAX_PEM, false)?)),
        IssuerKeys::Url(url) => pinned(&url.at)?,
    };
    let algorithms = list(algorithms.iter().map(|algorithm| algorithm.name().to_owned()));
    Ok(format!(
        "{} audiences={} tenants={tenants} algorithms={algorithms} typ={} claims={},{} amr={} acr={} \
         fresh_ms={mfa_fresh_millis} skew_ms={skew_millis} lifetime_ms={max_lifetime_millis} binding={binding} keys={keys}",
        plain(issuer),
        list(audiences.iter().cloned()),
        plain(typ),
        plain(tenant_claim),
        plain(roles_claim),
        list(mfa_amr.iter().cloned()),
        list(mfa_acr.iter().cloned()),
    ))
}

fn sink_line(sink: &LogSink) -> Result<String, ConfigError> {
    let to = match &sink.to {
        SinkTarget::File(file) => format!("file {}", plain(&file.path.display().to_string())),
        SinkTarget::Syslog(Syslog { host, port, roots, .. }) => {
            let roots = list(certificates(roots)?.iter().map(ToString::to_string));
            format!("syslog {}:{port} roots={roots}", plain(host))
        }
        SinkTarget::Otlp { url, .. } => format!("otlp {}", pinned(url)?),
    };
    Ok(format!("mandatory={} {to}", if sink.settings.mandatory { "yes" } else { "no" }))
}

fn witness_line(witness: &LogWitness) -> Result<String, ConfigError> {
    let mandatory = witness.mandatory.map_or_else(|| "no".to_owned(), |within| format!("{}ms", within.as_millis()));
    Ok(format!("{} mandatory={mandatory} at={}", plain(&witness.key.vkey()), pinned(&witness.url)?))
}
