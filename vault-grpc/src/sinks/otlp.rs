//! OTLP logs (OpenTelemetry protocol 1, over HTTP, in protobuf): confirmed is what the collector answered 200 for without
//! rejecting any of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use vault_core::audit::{Body, Delivered, Sink};

use super::text;
use crate::config::{ConfigError, Fields, NamedFile, PinnedUrl};
use crate::pinned::{Connected, Pinned};

mod wire;

use wire::{AnyValue, ExportRequest, ExportResponse, KeyValue, LogRecord, Resource, ResourceLogs, Scope, ScopeLogs};

/// The severities of OpenTelemetry.
const INFO: (i32, &str) = (9, "INFO");
const WARN: (i32, &str) = (13, "WARN");

/// A collector.
pub(super) struct OtlpSink {
    host: Pinned,
    timeout: Duration,
    origin: String,
    fields: Fields,
    /// Made in the sink's own thread: it must not be dropped in an asynchronous one.
    runtime: Option<Runtime>,
    connected: Option<Connected>,
}

impl fmt::Debug for OtlpSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpSink").field("host", &self.host).finish_non_exhaustive()
    }
}

impl OtlpSink {
    pub(super) fn load(
        url: &PinnedUrl,
        client: Option<&(NamedFile, NamedFile)>,
        origin: &str,
        fields: Fields,
    ) -> Result<Self, ConfigError> {
        let host = Pinned::with(url, client)?;
        let origin = origin.to_owned();
        Ok(Self { timeout: url.timeout, host, origin, fields, runtime: None, connected: None })
    }

    fn export(&mut self, entries: &[Delivered]) -> Result<(), &'static str> {
        let body = Bytes::from(self.request(entries).encode_to_vec());
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|_| "the operating system gave nothing to wait with")?,
        };
        let had_one = self.connected.is_some();
        let timeout = self.timeout;
        let result = runtime.block_on(async {
            let work = async {
                match self.post(body.clone()).await {
                    // The collector may have closed a connection that was idle; a new one is worth trying at once.
                    Err(_) if had_one && self.connected.is_none() => self.post(body).await,
                    result => result,
                }
            };
            tokio::time::timeout(timeout, work).await.unwrap_or(Err("no answer within the deadline"))
        });
        if result.is_err() {
            self.connected = None;
        }
        self.runtime = Some(runtime);
        result
    }

    async fn post(&mut self, body: Bytes) -> Result<(), &'static str> {
        let mut connected = match self.connected.take().filter(Connected::is_open) {
            Some(connected) => connected,
            None => self.host.connect().await?,
        };
        let request = Request::builder().method(Method::POST).header(header::CONTENT_TYPE, "application/x-protobuf");
        // Of an empty request, too, for which hyper leaves it out.
        let request = request.header(header::CONTENT_LENGTH, body.len());
        let answer = self.host.ask(&mut connected, request, body).await?;
        // Told apart for whoever has to do something about it; what else it says is not taken over.
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                return Err("the collector is overloaded");
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err("the collector refuses us"),
            StatusCode::NOT_FOUND => return Err("the collector takes no logs at this URL"),
            status if status.is_client_error() => return Err("the collector refuses the entries"),
            _ => return Err("the collector failed"),
        }
        let said = ExportResponse::decode(answer.into_body()).map_err(|_| "the collector's answer is not OTLP")?;
        if said.partial_success.is_some_and(|partial| partial.rejected_log_records != 0) {
            return Err("the collector rejected entries");
        }
        self.connected = Some(connected);
        Ok(())
    }

    fn request(&self, entries: &[Delivered]) -> ExportRequest {
        if entries.is_empty() {
            return ExportRequest::default();
        }
        let instance = self.origin.rsplit('/').next().unwrap_or_default();
        let resource = Resource {
            attributes: vec![
                KeyValue::text("service.name", "blindvault"),
                KeyValue::text("service.instance.id", instance),
                KeyValue::text("service.version", crate::release::VERSION),
            ],
        };
        let scope = Scope { name: self.origin.clone(), version: String::new() };
        let log_records = entries.iter().map(|entry| self.record(entry)).collect();
        let logs = ScopeLogs { scope: Some(scope), log_records };
        ExportRequest { resource_logs: vec![ResourceLogs { resource: Some(resource), scope_logs: vec![logs] }] }
    }

    fn record(&self, delivered: &Delivered) -> LogRecord {
        let Delivered { entry, leaf_hash } = delivered;
        let (severity_number, severity_text) = if matches!(entry.body, Body::Refused { .. }) { WARN } else { INFO };
        let nanos = entry.time.0.saturating_mul(1_000_000);
        let leaf = leaf_hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut attributes = vec![
            KeyValue::number("blindvault.index", i64::try_from(entry.index).unwrap_or(i64::MAX)),
            KeyValue::text("blindvault.leaf_hash", &leaf),
        ];
        if let Some(link) = &entry.link {
            attributes.push(KeyValue::text("blindvault.tenant", link.tenant.as_str()));
        }
        LogRecord {
            time_unix_nano: nanos,
            observed_time_unix_nano: nanos,
            severity_number,
            severity_text: severity_text.to_owned(),
            body: Some(AnyValue::text(&text(self.fields, &self.origin, delivered))),
            attributes,
        }
    }
}

impl Sink for OtlpSink {
    fn kind(&self) -> &'static str {
        "otlp"
    }

    fn most(&self) -> usize {
        256
    }

    /// An empty request, which a collector answers like any other.
    fn check(&mut self) -> Result<(), &'static str> {
        self.export(&[])
    }

    fn deliver(&mut self, entries: &[Delivered]) -> Result<(), &'static str> {
        self.export(entries)
    }
}
