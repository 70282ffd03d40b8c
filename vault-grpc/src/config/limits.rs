//! Bounds of connections and calls, each with a default and a range.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

/// What one listener allows. Each bound applies to each listener by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at the same time; 1,024. Further ones are closed at once.
    pub max_connections: usize,
    /// TLS handshakes running at the same time; 64. Further ones wait to be accepted.
    pub max_handshakes: usize,
    /// How long a handshake may take; 5 s.
    pub handshake_timeout: Duration,
    /// How long a connection may be open without a call running; 5 min.
    pub idle_timeout: Duration,
    /// How long a connection lives; 30 min, with up to a tenth more, drawn for each connection. It then gets a GOAWAY.
    pub connection_age: Duration,
    /// How long calls may go on after the GOAWAY before the connection is cut; 30 s.
    pub connection_grace: Duration,
    /// How long calls may go on after a signal to stop before everything is cut; 20 s.
    pub drain_timeout: Duration,
    /// How long a call may take, whatever deadline it brings; 30 s.
    pub call_timeout: Duration,
    /// How long a stream may stand still, waiting for its caller to send or to read; 30 s. `call_timeout` bounds only how it
    /// begins.
    pub stream_idle: Duration,
    /// Calls at the same time on one connection; 128.
    pub max_streams: u32,
    /// Largest message, in bytes, either way; 4 MiB and 64 KiB of framing.
    pub max_message_bytes: usize,
    /// Largest header list, in bytes; 16 KiB.
    pub max_header_list_bytes: u32,
    /// Largest HTTP/2 frame, in bytes; 16 KiB.
    pub max_frame_bytes: u32,
    /// What one call may send before it is read, in bytes; 1 MiB.
    pub stream_window_bytes: u32,
    /// What one connection may send before it is read, in bytes; 2 MiB.
    pub connection_window_bytes: u32,
    /// Streams that the peer reset before they were accepted; 20. Beyond, the connection is closed (rapid reset,
    /// CVE-2023-44487).
    pub max_pending_resets: usize,
    /// Streams that were reset for the peer's errors; 64. Beyond, the connection is closed.
    pub max_error_resets: usize,
    /// How often a silent peer is pinged; 20 s.
    pub keepalive_interval: Duration,
    /// How long it may take to answer a ping; 10 s.
    pub keepalive_timeout: Duration,
}

type Value = Option<Spanned<u64>>;

macro_rules! limits {
    ($($field:ident: $key:literal, $default:literal in $least:literal..=$most:literal => $make:expr;)+) => {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct RawLimits {
            $(#[serde(rename = $key)] $field: Value,)+
        }

        impl RawLimits {
            /// Checks each bound. `refuse` makes an error of a place in the text, a key and what is expected there.
            pub(super) fn check<E>(
                self,
                mut refuse: impl FnMut(usize, &'static str, String) -> E,
            ) -> Result<Limits, E> {
                Ok(Limits {
                    $($field: {
                        let value = match self.$field {
                            None => $default,
                            Some(value) if ($least..=$most).contains(value.get_ref()) => value.into_inner(),
                            Some(value) => {
                                let why = format!("must be {} to {}", $least, $most);
                                return Err(refuse(value.span().start, concat!("limits.", $key), why));
                            }
                        };
                        $make(value)
                    },)+
                })
            }
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $make($default),)+ }
            }
        }
    };
}

fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

limits! {
    max_connections: "max_connections", 1024 in 1..=100_000 => count;
    max_handshakes: "max_handshakes", 64 in 1..=4096 => count;
    handshake_timeout: "handshake_timeout_ms", 5000 in 100..=60_000 => Duration::from_millis;
    idle_timeout: "idle_timeout_ms", 300_000 in 1000..=86_400_000 => Duration::from_millis;
    connection_age: "connection_age_ms", 1_800_000 in 1000..=86_400_000 => Duration::from_millis;
    connection_grace: "connection_grace_ms", 30_000 in 100..=600_000 => Duration::from_millis;
    drain_timeout: "drain_timeout_ms", 20_000 in 100..=600_000 => Duration::from_millis;
    call_timeout: "call_timeout_ms", 30_000 in 100..=600_000 => Duration::from_millis;
    stream_idle: "stream_idle_timeout_ms", 30_000 in 100..=600_000 => Duration::from_millis;
    max_streams: "max_streams", 128 in 1..=10_000 => small;
    max_message_bytes: "max_message_bytes", 4_259_840 in 65_536..=16_777_216 => count;
    max_header_list_bytes: "max_header_list_bytes", 16_384 in 4096..=262_144 => small;
    max_frame_bytes: "max_frame_bytes", 16_384 in 16_384..=1_048_576 => small;
    stream_window_bytes: "stream_window_bytes", 1_048_576 in 65_535..=16_777_216 => small;
    connection_window_bytes: "connection_window_bytes", 2_097_152 in 65_535..=67_108_864 => small;
    max_pending_resets: "max_pending_resets", 20 in 1..=1000 => count;
    max_error_resets: "max_error_resets", 64 in 1..=10_000 => count;
    keepalive_interval: "keepalive_interval_ms", 20_000 in 1000..=3_600_000 => Duration::from_millis;
    keepalive_timeout: "keepalive_timeout_ms", 10_000 in 500..=600_000 => Duration::from_millis;
}
