//! What a gateway and its prover say to each other: one JSON document each way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A text and what errors call it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Text {
    /// The name.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// What is to be proved, and with what.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// The schema.
    pub schema: Text,
    /// The policies.
    pub policies: Vec<Text>,
    /// The solver's program.
    pub solver: PathBuf,
    /// Its arguments before its options.
    pub arguments: Vec<String>,
    /// The time for everything, in milliseconds.
    pub timeout_ms: u64,
    /// The address space of the proof, and of the solver, each; in MiB.
    pub memory_mib: u64,
}

/// What came of it. None but the first lets a set come into force.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Answer {
    /// Everything is proven.
    Proven {
        /// The text of a proof record, not signed.
        record: String,
    },
    /// There is a request that breaks a property.
    Refuted {
        /// The property.
        property: String,
        /// The kind of requests.
        requests: String,
        /// The request, for people.
        example: String,
    },
    /// A property was neither proved nor refuted.
    Unknown {
        /// The property.
        property: String,
        /// The kind of requests.
        requests: String,
        /// Why.
        why: String,
    },
    /// The set does not load.
    Unusable {
        /// The file, and the line.
        field: String,
        /// Why.
        why: String,
    },
}
