//! AWS KMS as the root of real tenants: LocalStack plays KMS, and a relay in front of it plays what KMS and the network
//! do on a bad day.
#![cfg(all(feature = "aws", feature = "dev"))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, reason = "tests")]

#[expect(dead_code, reason = "shared by several test programs, each of which uses a part")]
#[path = "common/fault_proxy.rs"]
mod fault_proxy;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/localstack.rs"]
mod localstack;
#[path = "common/pki.rs"]
mod pki;

#[path = "aws_kms/faults.rs"]
mod faults;
#[path = "aws_kms/life.rs"]
mod life;
#[path = "aws_kms/secrets.rs"]
mod secrets;
#[path = "aws_kms/support.rs"]
mod support;
