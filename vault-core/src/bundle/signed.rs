//! A bundle with its signatures, and the file that people pass around.

use serde::{Deserialize, Serialize};

use super::{Bundle, BundleRef, PolicyFile};
use crate::audit::LogSigner;
use crate::error::Error;
use crate::id::Fingerprint;
use crate::time::Timestamp;

/// Longest file of a bundle, in bytes.
pub const MAX_DOCUMENT: usize = 4_190_000;
/// Most signatures of a bundle.
pub const MAX_SIGNATURES: usize = 16;
/// Longest proof record, in bytes.
pub const MAX_PROOF: usize = 60_000;
/// Longest signature line, in bytes: a name of 200, and base64 of 68 bytes.
const MAX_LINE: usize = 400;

const TITLE: &str = "blindvault policy bundle v1";

/// A bundle, who signed it, and a record of what was proved of it.
///
/// What is signed is a text that names the bundle; signatures are lines of a signed note (C2SP signed-note, Ed25519):
/// ```text
/// blindvault policy bundle v1
/// instance: shop-1
/// version: 7
/// previous: sha256:…            or: previous: none
/// digest: sha256:…
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBundle {
    bundle: Bundle,
    encoded: Vec<u8>,
    digest: Fingerprint,
    signatures: Vec<String>,
    proof: Option<String>,
}

impl SignedBundle {
    /// A bundle that nobody has signed yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] as [`Bundle::check`].
    pub fn new(bundle: Bundle) -> Result<Self, Error> {
        let encoded = bundle.encode()?;
        let digest = Bundle::digest(&encoded);
        Ok(Self { bundle, encoded, digest, signatures: Vec::new(), proof: None })
    }

    /// The same with other signature lines, as [`Self::signatures`] gives them.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `signatures`: too many, or lines that are none.
    pub fn with_signatures(self, signatures: Vec<String>) -> Result<Self, Error> {
        if signatures.len() > MAX_SIGNATURES {
            return Err(Error::invalid("signatures", "more than 16"));
        }
        for (at, line) in signatures.iter().enumerate() {
            if line.len() > MAX_LINE || !line.starts_with("\u{2014} ") || line.chars().any(char::is_control) {
                return Err(Error::invalid(format!("signatures[{at}]"), "is no signature line of a signed note"));
            }
        }
        Ok(Self { signatures, ..self })
    }

    /// The same with a proof record.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `proof` if it is longer than [`MAX_PROOF`].
    pub fn with_proof(self, proof: Option<String>) -> Result<Self, Error> {
        if proof.as_ref().is_some_and(|proof| proof.len() > MAX_PROOF) {
            return Err(Error::invalid("proof", "longer than 60,000 bytes"));
        }
        Ok(Self { proof, ..self })
    }

    /// What was signed.
    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Its canonical bytes.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Its name.
    pub const fn reference(&self) -> BundleRef {
        BundleRef { version: self.bundle.version, digest: self.digest }
    }

    /// The signature lines.
    pub fn signatures(&self) -> &[String] {
        &self.signatures
    }

    /// The proof record, as it was brought.
    pub fn proof(&self) -> Option<&str> {
        self.proof.as_deref()
    }

    /// The text that is signed.
    pub fn statement(&self) -> String {
        let Bundle { instance, version, previous, .. } = &self.bundle;
        let previous = previous.map_or_else(|| "none".to_owned(), |digest| format!("sha256:{digest}"));
        let digest = self.digest;
        format!("{TITLE}\ninstance: {instance}\nversion: {version}\nprevious: {previous}\ndigest: sha256:{digest}\n")
    }

    /// The text with the signatures behind it: a signed note.
    pub fn note(&self) -> String {
        self.signatures.iter().fold(self.statement() + "\n", |note, line| note + line + "\n")
    }

    /// Adds a signature; one of the same key is there once.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `signatures` if there are too many; [`Error::Unavailable`] without the key.
    pub fn sign(self, signer: &LogSigner) -> Result<Self, Error> {
        let line = signer.signature_line(&self.statement())?;
        let mut signatures = self.signatures.clone();
        if !signatures.contains(&line) {
            signatures.push(line);
        }
        self.with_signatures(signatures)
    }

    /// The file, as JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `bundle` if it is longer than [`MAX_DOCUMENT`].
    pub fn to_document(&self) -> Result<String, Error> {
        let bundle = &self.bundle;
        let document = Document {
            format: TITLE.to_owned(),
            instance: bundle.instance.clone(),
            version: bundle.version,
            previous: bundle.previous,
            created: bundle.created.0,
            not_before: bundle.not_before.0,
            comment: bundle.comment.clone(),
            schema: bundle.schema.clone(),
            policies: bundle.policies.iter().map(|f| File { name: f.name.clone(), text: f.text.clone() }).collect(),
            registry: bundle.registry.clone(),
            signatures: self.signatures.clone(),
            proof: self.proof.clone(),
        };
        let text = serde_json::to_string_pretty(&document);
        let text = text.map_err(|_| Error::invalid("bundle", "cannot be written as JSON"))? + "\n";
        if text.len() > MAX_DOCUMENT { Err(too_long()) } else { Ok(text) }
    }

    /// Reads a file. Nothing is said about who signed it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, or the line if it is no such file: half-written, with unknown, missing or
    /// repeated fields, nested too deeply.
    pub fn from_document(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_DOCUMENT {
            return Err(too_long());
        }
        let document: Document = serde_json::from_str(text).map_err(|error| refused(&error))?;
        if document.format != TITLE {
            return Err(Error::invalid("format", "must be \"blindvault policy bundle v1\""));
        }
        let policies = document.policies.into_iter().map(|f| PolicyFile { name: f.name, text: f.text }).collect();
        let bundle = Bundle {
            instance: document.instance,
            version: document.version,
            previous: document.previous,
            created: Timestamp(document.created),
            not_before: Timestamp(document.not_before),
            comment: document.comment,
            schema: document.schema,
            policies,
            registry: document.registry,
        };
        Self::new(bundle)?.with_signatures(document.signatures)?.with_proof(document.proof)
    }
}

fn too_long() -> Error {
    Error::invalid("bundle", "the file is longer than 4,190,000 bytes")
}

/// serde's message may quote the file; its place may be told.
fn refused(error: &serde_json::Error) -> Error {
    let why = match error.classify() {
        serde_json::error::Category::Eof => "the file ends too early; is it complete?",
        serde_json::error::Category::Data => "a field is missing, unknown, there twice, or of the wrong type or form",
        _ => "not JSON; is the file complete?",
    };
    Error::invalid(format!("bundle line {} column {}", error.line(), error.column()), why)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    instance: String,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Fingerprint>,
    created: u64,
    not_before: u64,
    comment: String,
    schema: String,
    policies: Vec<File>,
    registry: String,
    #[serde(default)]
    signatures: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    text: String,
}
