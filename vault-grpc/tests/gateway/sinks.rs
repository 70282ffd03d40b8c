//! Sinks of the audit log behind a gateway that is called by many at once.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;
use vault_client::{Code, Target};
use vault_core::audit::{Health, SinkState, SinkStatus};

use super::metrics::metrics;
use super::sink_load::{Load, among, hold, is_of_sink, lines, until};
use super::sink_receivers::{Collector, SyslogServer};
use super::support::{Fixture, PATIENCE};

fn status(fixture: &Fixture) -> Vec<SinkStatus> {
    fixture.gateway.vault().audit().sinks()
}

fn is_good(fixture: &Fixture) -> bool {
    fixture.gateway.vault().audit().health() == Health::Good
        && status(fixture).iter().all(|sink| sink.state == SinkState::Good)
}

/// What the standard health service says of the data plane.
async fn serves(fixture: &Fixture) -> bool {
    let issued = fixture.issue_workload("/ns/shop/sa/billing");
    let tls = TlsConnector::from(Arc::new(fixture.tls(Some(&issued))));
    let address = fixture.gateway.data_addr();
    let connector = service_fn(move |_: http::Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tls.connect(ServerName::try_from("localhost").unwrap(), tcp).await.map(TokioIo::new)
        }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    let request = HealthCheckRequest { service: "vault.v1.CryptoService".to_owned() };
    let answer = HealthClient::new(channel).check(request).await.unwrap().into_inner();
    answer.status() == ServingStatus::Serving
}

/// Waits until the health service says so.
async fn health(fixture: &Fixture, serving: bool) {
    let begun = Instant::now();
    while serves(fixture).await != serving {
        assert!(begun.elapsed() < PATIENCE, "health is not {serving}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A gateway with these sinks, two tenants, and its metrics told.
async fn gateway(sinks: &str) -> Fixture {
    let fixture = Fixture::start_with(|made, text| {
        fs::create_dir(made.config.parent().unwrap().join("siem")).unwrap();
        text + "\n[metrics]\naddress = \"127.0.0.1:0\"\n" + sinks
    })
    .await;
    until("the sinks", || is_good(&fixture)).await;
    fixture.tenants().await;
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_that_is_removed_or_on_a_full_disk_stops_the_data_plane_and_loses_nothing() {
    let fixture = gateway(
        "\n[[audit.sink]]\nname = \"siem\"\nkind = \"file\"\npath = \"siem/audit.jsonl\"\nmandatory = true\nhistory = true\n",
    )
    .await;
    let file = fixture.root().join("siem/audit.jsonl");
    let load = Load::start(&fixture).await;
    load.goes_on(100).await;
    // Rotated by its name: nobody notices.
    let rotated = fixture.root().join("siem/audit.1");
    fs::rename(&file, &rotated).unwrap();
    load.goes_on(200).await;
    until("the new file", || file.exists()).await;
    assert_eq!((load.refused(), status(&fixture)[0].failures), (0, 0));
    // Removed, with something in its place in which nothing can be written.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    until("the failure", || status(&fixture)[0].state == SinkState::Failing).await;
    until("a refusal", || load.refused() > 0).await;
    until("its reason", || status(&fixture)[0].last_error == Some("its file cannot be opened")).await;
    let answered = load.answered();
    health(&fixture, false).await;
    assert!(matches!(fixture.gateway.vault().audit().health(), Health::SinkDown(_)));
    let client = fixture.workload("billing").await;
    let error = client.encrypt(&Target::new("acme", "customers", "billing"), b"4111").await.unwrap_err();
    assert!(is_of_sink(&error), "{error}");
    let error = fixture.operator().await.get_tenant("acme").await.unwrap_err();
    assert!(is_of_sink(&error), "operators' calls need their entries, too: {error}");
    let told = metrics(&fixture).await;
    for row in [
        "blindvault_audit_healthy 0",
        "blindvault_audit_sink_healthy{sink=\"siem\",kind=\"file\",mandatory=\"true\"} 0",
    ] {
        assert!(told.contains(row), "{row}\n{told}");
    }
    assert_eq!(load.answered(), answered, "answered while the sink was away");
    fs::remove_dir(&file).unwrap();
    until("recovery", || is_good(&fixture)).await;
    load.goes_on(100).await;
    health(&fixture, true).await;
    let told = metrics(&fixture).await;
    assert!(told.contains("blindvault_audit_sink_healthy{sink=\"siem\",kind=\"file\",mandatory=\"true\"} 1"), "{told}");
    // A full disk: the operating system's own file that is one.
    let before_full = fixture.root().join("siem/audit.2");
    fs::rename(&file, &before_full).unwrap();
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    let refused = load.refused();
    until("the full disk", || status(&fixture)[0].last_error == Some("its disk is full")).await;
    until("a refusal", || load.refused() > refused).await;
    fs::remove_file(&file).unwrap();
    until("recovery", || is_good(&fixture)).await;
    load.goes_on(100).await;
    let receipts = load.end().await;
    let root = fixture.root().to_owned();
    let _dir = hold(fixture, &receipts).await;
    let mut got = lines(&root.join("siem/audit.jsonl"));
    got.extend(lines(&rotated));
    got.extend(lines(&before_full));
    among(&receipts, &got);
    assert_eq!((0..).take_while(|index| got.contains_key(index)).count(), got.len(), "none is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_syslog_server_that_stops_reading_stops_the_data_plane_and_nothing_is_lost() {
    let server = SyslogServer::start().await;
    let fixture = gateway(&server.config("mandatory = true\ndeadline_ms = 400\n")).await;
    let load = Load::start(&fixture).await;
    load.goes_on(100).await;
    server.read(false);
    until("the deadline", || status(&fixture)[0].state == SinkState::Failing).await;
    until("a refusal", || load.refused() > 0).await;
    assert!(matches!(fixture.gateway.vault().audit().health(), Health::SinkDown(_)));
    health(&fixture, false).await;
    server.read(true);
    until("recovery", || is_good(&fixture)).await;
    load.goes_on(100).await;
    // A server that goes away in the middle of everything, and comes back.
    server.cut();
    load.goes_on(100).await;
    let receipts = load.end().await;
    let _dir = hold(fixture, &receipts).await;
    until("all receipts", || {
        let got = server.got();
        receipts.iter().flat_map(vault_client::AuditReceipt::entries).all(|(index, _)| got.contains_key(&index))
    })
    .await;
    among(&receipts, &server.got());
    assert!(server.messages().iter().all(|message| message.starts_with("<110>1 ") || message.starts_with("<108>1 ")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_collector_that_does_not_answer_or_rejects_stops_the_data_plane_and_nothing_is_lost() {
    let collector = Collector::start().await;
    let fixture = gateway(&collector.config("mandatory = true\ndeadline_ms = 400\n")).await;
    let load = Load::start(&fixture).await;
    load.goes_on(100).await;
    for (answer, why) in [
        (Some("hang"), None),
        (Some("reject"), Some("the collector rejected entries")),
        (Some("503"), Some("the collector is overloaded")),
    ] {
        let (refused, failures) = (load.refused(), status(&fixture)[0].failures);
        collector.answer(answer);
        until("a failure", || status(&fixture)[0].failures > failures).await;
        until("a refusal", || load.refused() > refused).await;
        if why.is_some() {
            until("its reason", || status(&fixture)[0].last_error == why).await;
        }
        collector.answer(None);
        until("recovery", || is_good(&fixture)).await;
        load.goes_on(100).await;
    }
    let receipts = load.end().await;
    let _dir = hold(fixture, &receipts).await;
    among(&receipts, &collector.got());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_best_effort_sink_stops_nobody_and_gets_everything_when_it_is_back() {
    let server = SyslogServer::start().await;
    let fixture = gateway(&server.config("queue = 50\ndeadline_ms = 300\n")).await;
    let load = Load::start(&fixture).await;
    server.read(false);
    server.cut();
    server.refuse(true);
    until("the failure", || status(&fixture)[0].state == SinkState::Failing).await;
    load.goes_on(300).await;
    health(&fixture, true).await;
    assert_eq!(fixture.gateway.vault().audit().health(), Health::Good);
    until("lag", || status(&fixture)[0].lag > 50).await;
    assert_eq!(load.refused(), 0);
    let lag = metrics(&fixture).await;
    assert!(
        lag.contains("blindvault_audit_sink_healthy{sink=\"siem\",kind=\"syslog\",mandatory=\"false\"} 0"),
        "{lag}"
    );
    assert!(lag.contains("blindvault_audit_healthy 1"), "{lag}");
    server.refuse(false);
    server.read(true);
    // Without the load: callers who never pause may be faster than the receiver.
    let receipts = load.end().await;
    until("caught up", || is_good(&fixture)).await;
    let _dir = hold(fixture, &receipts).await;
    until("all receipts", || {
        let got = server.got();
        receipts.iter().flat_map(vault_client::AuditReceipt::entries).all(|(index, _)| got.contains_key(&index))
    })
    .await;
    among(&receipts, &server.got());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_starts_without_its_mandatory_sink_and_serves_once_it_is_there() {
    let server = SyslogServer::start().await;
    server.refuse(true);
    let fixture = Fixture::start_with(|made, text| {
        fs::create_dir(made.config.parent().unwrap().join("siem")).unwrap();
        text + &server.config("mandatory = true\ndeadline_ms = 300\n")
    })
    .await;
    let error = fixture.operator().await.create_tenant("acme", None, "test").await.unwrap_err();
    assert!(is_of_sink(&error) && error.code() == Code::Unavailable, "{error}");
    health(&fixture, false).await;
    server.refuse(false);
    until("the sink", || is_good(&fixture)).await;
    fixture.tenants().await;
    fixture.gateway.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_does_not_prove_its_name_gets_nothing() {
    let (server, other) = (SyslogServer::start().await, SyslogServer::start().await);
    // The roots are another server's.
    let config = server.config("deadline_ms = 2000\n").replace(&server.roots(), &other.roots());
    let fixture = Fixture::start_with(|_, text| text + &config).await;
    fixture.tenants().await;
    until("the failure", || {
        status(&fixture)[0].last_error == Some("the server does not prove its name under the configured roots")
    })
    .await;
    assert!(server.messages().is_empty());
    fixture.gateway.shutdown().await.unwrap();
}
