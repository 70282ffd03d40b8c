//! `operators`: what the owner of a gateway does with the list of operators, without a gateway.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use vault_core::audit::{LogSigner, LogVerifier};
use vault_core::fs::OsFs;
use vault_core::principal::{MAX_LIST, OperatorList};
use vault_grpc::build::StartError;
use vault_grpc::operators;

use super::bundle::{MAX_VKEY, about, done, new_key, public_half, read, refuse, write};
use super::print;

/// Longest file of a list, in bytes: with its signature.
const MAX_FILE: u64 = MAX_LIST as u64 + 4_000;

#[derive(Debug, Subcommand)]
pub(super) enum OperatorsCommand {
    /// Make an owner's key: FILE (mode 0600), and FILE.pub, whose line goes into `operators.owner`. Keep FILE offline.
    Key {
        /// The key's name, for example `shop-1/owner`: 1 to 200 of `a-z A-Z 0-9 . / - _ :`.
        #[arg(long)]
        name: String,
        /// The file, which must not exist yet.
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a list of operators, an edited one too: its old signatures are left out.
    Sign {
        /// The list.
        file: PathBuf,
        /// The owner's key; its FILE.pub must be beside it.
        #[arg(long)]
        key: PathBuf,
        /// Where to write the signed list; without, in place of the list.
        #[arg(long)]
        out: Option<PathBuf>,
        /// The list in force, which the new one follows: says what changes for whom.
        #[arg(long)]
        after: Option<PathBuf>,
    },
    /// Say whether a list bears the owner's signature and is in order, and who is in it.
    Verify {
        /// The signed list.
        file: PathBuf,
        /// The owner's verifier key, or a file with it.
        #[arg(long)]
        key: String,
        /// The list in force, which the new one follows: says what changes for whom.
        #[arg(long)]
        after: Option<PathBuf>,
    },
}

pub(super) fn run(command: OperatorsCommand) -> ExitCode {
    match command {
        OperatorsCommand::Key { name, out } => done("make an owner's key", new_key(&name, &out)),
        OperatorsCommand::Sign { file, key, out, after } => {
            let out = out.unwrap_or_else(|| file.clone());
            done("sign a list of operators", sign(&file, &key, &out, after.as_deref()))
        }
        OperatorsCommand::Verify { file, key, after } => {
            done("verify a list of operators", verify(&file, &key, after.as_deref()))
        }
    }
}

/// The list of a file, whoever signed it, if somebody did.
fn unsigned(file: &Path) -> Result<OperatorList, StartError> {
    let text = read(file, MAX_FILE)?;
    // An empty line is in no list: what follows it are signatures.
    let list = text.find("\n\n").and_then(|end| text.get(..=end)).unwrap_or(&text);
    OperatorList::parse(list).map_err(about(file))
}

/// Says what a list says; and, if it is to follow another, what it changes.
fn show(file: &Path, list: &OperatorList, after: Option<&Path>) -> Result<(), StartError> {
    print::line(format_args!("operators of {}, {}", list.instance(), list.reference()));
    let Some(after) = after else {
        for person in list.people() {
            let roles: Vec<_> = person.roles.iter().map(|role| role.name()).collect();
            let (certificates, tokens) = (person.certificates.len(), person.tokens.len());
            let roles = roles.join(" ");
            print::line(format_args!("{}: {roles}; {certificates} certificates, {tokens} tokens", person.id));
        }
        return Ok(());
    };
    let before = unsigned(after)?;
    if before.instance() != list.instance() {
        return Err(refuse(file, "is of another instance than the list of --after"));
    }
    list.check_follows(Some(before.reference())).map_err(about(file))?;
    before.changes(list).iter().for_each(print::line);
    Ok(())
}

fn sign(file: &Path, key: &Path, out: &Path, after: Option<&Path>) -> Result<(), StartError> {
    let list = unsigned(file)?;
    let public = public_half(key);
    let verifier = LogVerifier::parse(&read(&public, MAX_VKEY)?).map_err(about(&public))?;
    let owner = LogSigner::load(&OsFs, key, verifier.origin()).map_err(about(key))?;
    if *owner.verifier() != verifier {
        return Err(refuse(&public, "is not the public half of the key"));
    }
    show(file, &list, after)?;
    write(out, &operators::sign(&list, &owner)?)?;
    print::line(format_args!("signed by {}: {}", verifier.origin(), out.display()));
    Ok(())
}

fn verify(file: &Path, key: &str, after: Option<&Path>) -> Result<(), StartError> {
    let key = match LogVerifier::parse(key) {
        Ok(key) => key,
        Err(_) => LogVerifier::parse(&read(Path::new(key), MAX_VKEY)?).map_err(about(Path::new(key)))?,
    };
    let note = read(file, MAX_FILE)?;
    let list = OperatorList::parse(key.note(&note).map_err(about(file))?).map_err(about(file))?;
    show(file, &list, after)?;
    print::line(format_args!("in order: signed by {}", key.origin()));
    Ok(())
}
