//! Receivers that others wrote: rsyslog, and a collector that decodes with OpenTelemetry's own messages.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use vault_client::{AuditReceipt, Target};

use super::sink_load::{among, hold, until};
use super::sink_receivers::Pki;
use super::support::Fixture;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[expect(clippy::print_stdout, clippy::disallowed_macros, reason = "a test says that it is skipped")]
fn skipped(test: &str, reason: &str) {
    assert!(std::env::var_os("BLINDVAULT_REQUIRE").is_none_or(|v| v != "1"), "{test}: {reason}");
    println!("SKIPPED {test}: {reason}");
}

/// A gateway with this sink, some calls of it, and the receipts.
async fn called(sink: &str) -> (Fixture, Vec<AuditReceipt>) {
    let fixture = Fixture::start_with(|_, text| text + sink).await;
    let is_good = || fixture.gateway.vault().audit().health() == vault_core::audit::Health::Good;
    until("the sink", is_good).await;
    fixture.tenants().await;
    let client = fixture.workload("billing").await;
    let target = Target::new("acme", "customers", "billing").subject("ann@example.com").context("field", "iban-9");
    let mut receipts = Vec::new();
    for _ in 0..20 {
        receipts.push(client.encrypt(&target, b"4111-secret").await.unwrap().audit_receipt.unwrap());
    }
    client.encrypt(&Target::new("globex", "customers", "billing"), b"x").await.unwrap_err();
    (fixture, receipts)
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_takes_and_parses_every_message() {
    let test = "rsyslog_takes_and_parses_every_message";
    let program = ["/usr/sbin/rsyslogd", "/sbin/rsyslogd"].into_iter().find(|path| fs::exists(path).unwrap());
    let Some(program) = program else { return skipped(test, "rsyslog is not installed") };
    let pki = Pki::new();
    let [conf, port, out, pid] = ["rsyslog.conf", "port", "out.jsonl", "pid"].map(|name| pki.path(name));
    let [roots, certificate, key] = ["roots.pem", "server.pem", "server.key"].map(|name| pki.path(name));
    // Each part of the message as rsyslog parsed it, as one JSON object a line.
    fs::write(
        &conf,
        format!(
            r#"
global(workDirectory="{dir}" maxMessageSize="64k" defaultNetstreamDriver="ossl"
       defaultNetstreamDriverCAFile="{roots}" defaultNetstreamDriverCertFile="{certificate}"
       defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{port}")
template(name="parts" type="list" option.jsonf="on") {{
  property(name="pri" format="jsonf" outname="pri")
  property(name="protocol-version" format="jsonf" outname="version")
  property(name="timereported" dateFormat="rfc3339" format="jsonf" outname="time")
  property(name="hostname" format="jsonf" outname="host")
  property(name="app-name" format="jsonf" outname="app")
  property(name="msgid" format="jsonf" outname="msgid")
  property(name="structured-data" format="jsonf" outname="data")
  property(name="msg" format="jsonf" outname="text")
}}
action(type="omfile" file="{out}" template="parts")
"#,
            dir = pki.dir.path().display()
        ),
    )
    .unwrap();
    let mut command = Command::new(program);
    command.args(["-n", "-f", &conf, "-i", &pid]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = Running(command.spawn().unwrap());
    let begun = Instant::now();
    let port = loop {
        if let Ok(text) = fs::read_to_string(&port)
            && let Ok(port) = text.trim().parse::<u16>()
        {
            break port;
        }
        if begun.elapsed() > Duration::from_secs(30) || server.0.try_wait().unwrap().is_some() {
            drop(server.0.kill());
            let said = server.0.stderr.take().map(std::io::read_to_string);
            // Without its TLS driver, which is a package of its own, it does not listen.
            return skipped(test, &format!("rsyslog does not listen with TLS (rsyslog-openssl): {said:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let sink = format!(
        "\n[[audit.sink]]\nname = \"rsyslog\"\nkind = \"syslog\"\naddress = \"localhost:{port}\"\nmandatory = true\n\
         deadline_ms = 20000\nhistory = true\n{}",
        pki.config()
    );
    let (fixture, receipts) = called(&sink).await;
    let _dir = hold(fixture, &receipts).await;
    let got = || {
        let mut got = HashMap::new();
        for line in fs::read_to_string(&out).unwrap_or_default().lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let data = line["data"].as_str().unwrap().to_owned();
            let part =
                |name: &str| data.split_once(&format!(" {name}=\"")).unwrap().1.split_once('"').unwrap().0.to_owned();
            assert_eq!((&line["version"], &line["app"]), (&"1".into(), &"blindvault".into()), "{line}");
            assert!(data.starts_with("[blindvault@32473 "), "{line}");
            let text: Value = serde_json::from_str(line["text"].as_str().unwrap().trim()).unwrap();
            assert_eq!(text["unmapped"]["leaf_hash"], part("leaf"));
            assert_eq!(text["unmapped"]["kind"], line["msgid"]);
            let refused = line["msgid"] == "refused";
            assert_eq!(line["pri"], if refused { "108" } else { "110" }, "{line}");
            got.insert(part("index").parse::<u64>().unwrap(), part("leaf"));
        }
        got
    };
    until("all messages", || {
        let got = got();
        receipts.iter().flat_map(AuditReceipt::entries).all(|(index, _)| got.contains_key(&index))
    })
    .await;
    among(&receipts, &got());
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.contains("\"msgid\":\"refused\""), "{text}");
    for secret in ["4111-secret", "ann@example.com", "iban-9"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_with_opentelemetrys_own_messages_decodes_every_record() {
    let test = "a_collector_with_opentelemetrys_own_messages_decodes_every_record";
    let Some(python) = std::env::var_os("BLINDVAULT_PYTHON") else {
        return skipped(
            test,
            "BLINDVAULT_PYTHON does not name an interpreter with the packages of xtask/requirements.txt",
        );
    };
    let pki = Pki::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/otlp_collector.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(["roots.pem", "server.pem", "server.key"].map(|name| pki.path(name)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _running = Running(child);
    let port = lines.next().unwrap().unwrap();
    let got = Arc::new(Mutex::new(Vec::<Value>::new()));
    let putting = Arc::clone(&got);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            putting.lock().unwrap().push(serde_json::from_str(&line).unwrap());
        }
    });
    let sink = format!(
        "\n[[audit.sink]]\nname = \"otel\"\nkind = \"otlp\"\nurl = \"https://localhost:{port}\"\nmandatory = true\n\
         deadline_ms = 20000\nhistory = true\n{}",
        pki.config()
    );
    let (fixture, receipts) = called(&sink).await;
    let _dir = hold(fixture, &receipts).await;
    let leaves = || {
        let mut leaves = HashMap::new();
        for record in got.lock().unwrap().iter() {
            let attribute = |key: &str| {
                let all = record["attributes"].as_array().unwrap();
                all.iter().find(|attribute| attribute["key"] == key).map(|attribute| attribute["value"].clone())
            };
            // Protobuf's JSON form writes 64 bits as text.
            let index: u64 = attribute("blindvault.index").unwrap()["intValue"].as_str().unwrap().parse().unwrap();
            let leaf = attribute("blindvault.leaf_hash").unwrap()["stringValue"].as_str().unwrap().to_owned();
            let body: Value = serde_json::from_str(record["body"]["stringValue"].as_str().unwrap()).unwrap();
            assert_eq!(
                (&body["metadata"]["sequence"], &body["unmapped"]["leaf_hash"]),
                (&index.into(), &leaf.clone().into())
            );
            assert_eq!(record["good"], true, "{record}");
            assert_eq!(record["service"]["service.name"], "blindvault");
            assert!(record["scope"].as_str().unwrap().starts_with("blindvault/"), "{record}");
            let refused = body["unmapped"]["kind"] == "refused";
            assert_eq!(record["severityText"], if refused { "WARN" } else { "INFO" });
            leaves.insert(index, leaf);
        }
        leaves
    };
    until("all records", || {
        let got = leaves();
        receipts.iter().flat_map(AuditReceipt::entries).all(|(index, _)| got.contains_key(&index))
    })
    .await;
    among(&receipts, &leaves());
    let text = format!("{:?}", got.lock().unwrap());
    for secret in ["4111-secret", "ann@example.com", "iban-9"] {
        assert!(!text.contains(secret), "{secret}");
    }
}
