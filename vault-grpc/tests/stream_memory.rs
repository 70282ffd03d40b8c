//! A stream takes no more memory the longer it is: so many MiB are encrypted and decrypted at the same time, and the
//! process that serves them, and calls as well, grows by 64 MiB at most.
//!
//! `BLINDVAULT_STREAM_MIB` says how many; 32 unless it is set, which takes an unoptimized build some seconds, 4,096 in
//! `cargo xtask test --long`. It is the only test of its program, so that nothing else grows meanwhile.
#![cfg(all(feature = "dev", target_os = "linux"))]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test, which says what it measured")]
#![expect(clippy::disallowed_macros, reason = "a test says what it measured")]

#[expect(unreachable_pub, dead_code, reason = "shared by several tests")]
mod common;

use std::fs;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use common::{DATASET, Site, TENANT};
use tokio::io::{AsyncReadExt as _, AsyncWrite, duplex, repeat, split};
use vault_client::{Target, VaultClient};

const BYTE: u8 = 0x5a;
const MIB: u64 = 1024 * 1024;

/// Takes what it expects and keeps none of it.
#[derive(Default)]
struct Expecting(u64);

impl AsyncWrite for Expecting {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(bytes.iter().all(|byte| *byte == BYTE), "another byte than was sent");
        self.0 += bytes.len() as u64;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Bytes that a line of /proc/self/status says.
fn status(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Through both calls, one after the other but at the same time.
async fn through(client: &VaultClient, bytes: u64) {
    let target = Target::new(TENANT, DATASET, "billing");
    let (sealed, opened) = duplex(65_536);
    let ((from, _here), (_there, to)) = (split(opened), split(sealed));
    let mut expecting = Expecting::default();
    let (sealing, opening) = tokio::join!(
        async {
            let mut to = to;
            let done = client.encrypt_stream(&target, repeat(BYTE).take(bytes), &mut to).await;
            tokio::io::AsyncWriteExt::shutdown(&mut to).await.unwrap();
            done
        },
        client.decrypt_stream(&target, from, &mut expecting),
    );
    assert!(sealing.unwrap().written > bytes);
    assert_eq!((opening.unwrap().written, expecting.0), (bytes, bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_a_stream() {
    let mib = std::env::var("BLINDVAULT_STREAM_MIB").map_or(32, |mib| mib.parse().unwrap());
    let site = Site::start().await;
    let client = VaultClient::connect(&site.workload(site.gateway.data_addr())).await.unwrap();
    through(&client, 2 * MIB).await;
    let before = status("VmRSS:");
    // The high-water mark starts again.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let begun = Instant::now();
    through(&client, mib * MIB).await;
    let grown = status("VmHWM:").saturating_sub(before);
    let took = begun.elapsed();
    println!("measured: {mib} MiB encrypted and decrypted in {took:?}: at most {} KiB more memory", grown / 1024);
    assert!(grown <= 64 * MIB, "{grown} bytes");
    site.gateway.shutdown().await.unwrap();
}
