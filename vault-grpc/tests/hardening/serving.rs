//! A gateway that is held to both lists serves: everything that it does while it runs is on them.

use std::fs;

use rustix::process::Signal;
use vault_client::Target;

use super::served::{Served, Site};

fn statuses(served: &Served) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", served.pid())).unwrap();
    // A thread may end while we look.
    tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok()).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find(|line| line.split(':').next() == Some(name)).unwrap();
    line.split_whitespace().nth(1).unwrap()
}

fn required(site: &Site) {
    site.configure("[hardening]\nseccomp = \"required\"\nlandlock = \"required\"\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_is_restricted_and_the_gateway_serves_reloads_and_stops() {
    let site = Site::new();
    required(&site);
    let mut served = site.serve();
    assert!(!served.said.iter().any(|line| line.contains("unhardened")), "{:?}", served.said);
    let operator = site.operator(&served).await;
    operator.create_tenant("acme", None, "test").await.unwrap();
    operator.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let workload = site.workload(&served).await;
    let target = Target::new("acme", "customers", "billing");
    let sealed = workload.encrypt(&target, b"value").await.unwrap();
    let opened = workload.decrypt(&target, sealed.envelope).await.unwrap();
    assert_eq!(opened.plaintext.as_bytes(), b"value");
    operator.rotate_tenant_key("acme", "test").await.unwrap();

    let all = statuses(&served);
    assert!(all.len() > 4, "{} threads", all.len());
    for status in &all {
        let name = field(status, "Name");
        assert_eq!(field(status, "Seccomp"), "2", "{name}: a filter");
        assert_eq!(field(status, "Seccomp_filters"), "2", "{name}");
        assert_eq!(field(status, "NoNewPrivs"), "1", "{name}");
        assert_eq!(field(status, "Umask"), "0077", "{name}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(status, set).trim_start_matches('0'), "", "{name}: {set}");
        }
    }

    // A certificate that replaces another by a rename is another file, and is read.
    let certificate = site.path("certs/gateway.pem");
    let aside = site.path("certs/gateway.pem.new");
    fs::copy(&certificate, &aside).unwrap();
    fs::rename(&aside, &certificate).unwrap();
    site.hand_over();
    served.signal(Signal::HUP);
    served.says("reloaded");
    let said = served.stop();
    assert!(said.last().unwrap().contains("stopped"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_again_on_what_is_there() {
    let site = Site::new();
    required(&site);
    let served = site.serve();
    site.operator(&served).await.create_tenant("acme", None, "test").await.unwrap();
    served.stop();
    let served = site.serve();
    let tenants = site.operator(&served).await.create_tenant("globex", None, "test").await;
    tenants.unwrap();
    served.stop();
}

#[test]
fn check_restricts_itself_and_says_what_is_wrong() {
    let site = Site::new();
    required(&site);
    site.hand_over();
    let check = || {
        let out = site.command(&["check", "--config"]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    assert_eq!(check().0, Some(0), "{}", check().1);
    assert!(!site.path("data").exists(), "it makes nothing");
    site.configure("executables = [\"absent\"]\n");
    let (code, error) = check();
    assert!(code == Some(1) && error.contains("hardening.executables") && error.contains("cannot be read"), "{error}");
    let text = fs::read_to_string(&site.made.config).unwrap();
    let edit = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&site.made.config, text.replacen(from, to, 1)).unwrap();
        check().1
    };
    let error = edit("seccomp = \"required\"", "seccomp = \"off\"");
    assert!(error.contains("hardening.seccomp: must be") && error.contains("best-effort"), "{error}");
    let error = edit("executables = [\"absent\"]", "write = [\"/\"]");
    assert!(error.contains("hardening.write") && error.contains("every file"), "{error}");
}

#[cfg(feature = "pkcs11")]
#[test]
fn the_module_of_an_hsm_works_in_a_restricted_gateway() {
    use super::softhsm::{PIN, with_tokens, write_pin};
    use vault_core::kms::Pkcs11Root;

    let name = "serving::the_module_of_an_hsm_works_in_a_restricted_gateway";
    with_tokens(name, &["vault"], |hsm| {
        Pkcs11Root::create_key(&hsm.settings("vault", "root")).unwrap();
        let mut site = Site::new();
        // The tokens belong to whoever made them.
        site.user = None;
        write_pin(&site.path("hsm.pin"), PIN, 0o600);
        let text = fs::read_to_string(&site.made.config).unwrap();
        let module = format!(
            "[root]\nkind = \"pkcs11\"\nmodule = {:?}\ntoken = \"vault\"\nkey = \"root\"\npin_file = \"hsm.pin\"\n",
            hsm.module
        );
        fs::write(&site.made.config, text.replace("[root]\nkind = \"local\"\npath = \"root.key\"\n", &module)).unwrap();
        required(&site);
        let (conf, tokens) = (hsm.dir.join("softhsm2.conf"), hsm.dir.join("tokens"));
        site.configure(&format!("read = [{conf:?}]\nwrite = [{tokens:?}]\n"));
        let served = site.serve();
        let work = async {
            let operator = site.operator(&served).await;
            operator.create_tenant("acme", None, "test").await.unwrap();
            operator.create_dataset("acme", "customers", "", "", "test").await.unwrap();
            let workload = site.workload(&served).await;
            let target = Target::new("acme", "customers", "billing");
            let sealed = workload.encrypt(&target, b"in a module").await.unwrap();
            operator.rotate_tenant_key("acme", "test").await.unwrap();
            assert_eq!(workload.decrypt(&target, sealed.envelope).await.unwrap().plaintext.as_bytes(), b"in a module");
        };
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work);
        served.stop();
    });
}

/// Answers every request for logs, as a collector does that takes all of them; counts them.
fn collector() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::io::{BufRead as _, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), std::sync::Arc::default());
    let counting: std::sync::Arc<std::sync::atomic::AtomicUsize> = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            // One request a connection, so that each delivery makes a new one.
            let mut tcp = std::io::BufReader::new(tcp.unwrap());
            let (mut length, mut line) = (0, String::new());
            while tcp.read_line(&mut line).unwrap_or(0) > 2 {
                let lower = line.to_ascii_lowercase();
                length = lower.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().unwrap());
                line.clear();
            }
            let mut body = vec![0; length];
            if tcp.read_exact(&mut body).is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                drop(tcp.get_mut().write_all(answer));
                counting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_write_rotate_and_connect_again_under_both_restrictions() {
    let site = Site::new();
    required(&site);
    let (collector, asked) = collector();
    site.configure(&format!(
        "[[audit.sink]]\nname = \"file\"\nkind = \"file\"\npath = \"siem/audit.jsonl\"\nmandatory = true\n\
         deadline_ms = 20000\n[[audit.sink]]\nname = \"otel\"\nkind = \"otlp\"\nurl = \"http://{collector}\"\n\
         mandatory = true\ndeadline_ms = 20000\n"
    ));
    fs::create_dir(site.path("siem")).unwrap();
    let served = site.serve();
    let operator = site.operator(&served).await;
    operator.create_tenant("acme", None, "test").await.unwrap();
    operator.create_dataset("acme", "customers", "", "", "test").await.unwrap();
    let workload = site.workload(&served).await;
    let target = Target::new("acme", "customers", "billing");
    let (file, rotated) = (site.path("siem/audit.jsonl"), site.path("siem/audit.1"));
    workload.encrypt(&target, b"value").await.unwrap();
    fs::rename(&file, &rotated).unwrap();
    // Looked at every second when nothing comes.
    let begun = std::time::Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "no new file");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let before = asked.load(std::sync::atomic::Ordering::SeqCst);
    workload.encrypt(&target, b"value").await.unwrap();
    assert!(asked.load(std::sync::atomic::Ordering::SeqCst) > before, "the collector was asked before the answer");
    for file in [&file, &rotated] {
        assert!(fs::read_to_string(file).unwrap().contains("\"operation\":\"Encrypt\""), "{}", file.display());
    }
    served.stop();
}
