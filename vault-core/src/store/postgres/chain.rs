//! What binds rows to the present (`docs/postgres.md`, "Old rows"): sums over versions, and the chain of changes.
//!
//! ```text
//! element(x, n) = HMAC-SHA256(freshness key, label ‖ LP(x) … ‖ n)
//! tenant's sum  = Σ element(table ‖ stored key, version)  over its rows that were ever replaced     mod 2^256
//! total         = Σ element(tenant, its epoch)            over tenants with such rows               mod 2^256
//! chain[n]      = SHA-256("blindvault/chain/v1" ‖ 00 ‖ chain[n-1] ‖ n ‖ digest[n]),  chain[1] = 0
//! ```
//!
//! The sums are MSet-Add-Hash (Clarke, Devadas, van Dijk, Gassend, Suh: Incremental Multiset Hash Functions and Their
//! Application to Memory Integrity Checking, ASIACRYPT 2003) with HMAC-SHA256 as the keyed function; they are kept
//! sealed, so they need no blinding. Each is bound to its epoch by the AAD under which it is sealed.

use ring::digest;

use super::fault::Fault;
use super::seal::Sealer;
use crate::error::Error;

/// The kinds under which heads are sealed; no table of rows has such a name.
const TENANT: &str = "#tenant";
const TOTAL: &str = "#epoch";

/// A sum modulo 2^256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    high: u128,
    low: u128,
}

impl Sum {
    fn from_bytes(bytes: &[u8; 32]) -> Self {
        let (high, low) = bytes.split_at(16);
        let number = |half: &[u8]| half.first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
        Self { high: number(high), low: number(low) }
    }

    fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (high, low) = bytes.split_at_mut(16);
        high.copy_from_slice(&self.high.to_be_bytes());
        low.copy_from_slice(&self.low.to_be_bytes());
        bytes
    }

    pub(super) fn add(&mut self, element: [u8; 32]) {
        let other = Self::from_bytes(&element);
        let (low, carry) = self.low.overflowing_add(other.low);
        self.low = low;
        self.high = self.high.wrapping_add(other.high).wrapping_add(carry.into());
    }

    pub(super) fn remove(&mut self, element: [u8; 32]) {
        let other = Self::from_bytes(&element);
        let (low, borrow) = self.low.overflowing_sub(other.low);
        self.low = low;
        self.high = self.high.wrapping_sub(other.high).wrapping_sub(borrow.into());
    }
}

/// The state of all rows at an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) epoch: i64,
    pub(super) chain: [u8; 32],
    pub(super) sum: Sum,
}

fn damaged() -> Error {
    Fault::Damaged("the record of changes is not as it was written").into()
}

impl Total {
    /// Of a database without rows.
    pub(super) const EMPTY: Self = Self { epoch: 1, chain: [0; 32], sum: Sum { high: 0, low: 0 } };

    pub(super) fn seal(&self, sealer: &Sealer) -> Result<Vec<u8>, Error> {
        let number = u64::try_from(self.epoch).map_err(|_| damaged())?;
        sealer.close((TOTAL, b""), number, [self.chain, self.sum.to_bytes()].concat())
    }

    pub(super) fn open(sealer: &Sealer, epoch: i64, sealed: Option<&[u8]>) -> Result<Self, Error> {
        let body = sealer.disclose((TOTAL, b""), epoch, sealed.ok_or_else(damaged)?)?;
        match body.as_chunks() {
            ([chain, sum], []) => Ok(Self { epoch, chain: *chain, sum: Sum::from_bytes(sum) }),
            _ => Err(damaged()),
        }
    }

    /// The next epoch, at which a tenant's rows changed; each tenant once.
    pub(super) fn advance(
        &mut self,
        sealer: &Sealer,
        tenant: &[u8],
        before: Option<i64>,
        to: i64,
    ) -> Result<(), Error> {
        if let Some(before) = before {
            self.sum.remove(sealer.element(&[tenant], before)?);
        }
        self.sum.add(sealer.element(&[tenant], to)?);
        Ok(())
    }
}

/// One more link.
pub(super) fn link(chain: &[u8; 32], epoch: i64, digest: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [b"blindvault/chain/v1\0", &chain[..], &epoch.to_be_bytes(), digest] {
        context.update(part);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// What an epoch changed, hashed: tenants, and each one's rows, in order.
pub(super) struct Change(digest::Context);

impl Change {
    pub(super) fn new() -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"blindvault/change/v1\0");
        Self(context)
    }

    /// A row: its table, stored key, new version and sealed value.
    pub(super) fn row(&mut self, kind: &str, key: &[u8], version: i64, value: &[u8]) {
        for part in [kind.as_bytes(), key, &version.to_be_bytes(), value] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    pub(super) fn digest(self) -> [u8; 32] {
        self.0.finish().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// What stands sealed in the database of a tenant, at the epoch of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// Over its replaced rows.
    pub(super) sum: Sum,
    /// The epoch of the last change that its keys must be wiped for; 0 for none.
    pub(super) keys: i64,
}

pub(super) fn open_tenant(sealer: &Sealer, tenant: &[u8], epoch: i64, sealed: &[u8]) -> Result<Head, Error> {
    let body = sealer.disclose((TENANT, tenant), epoch, sealed)?;
    match body.split_first_chunk::<32>() {
        // As it was before it said so: as if keys went with every change.
        Some((sum, [])) => Ok(Head { sum: Sum::from_bytes(sum), keys: epoch }),
        Some((sum, keys)) => {
            let keys = keys.try_into().map(i64::from_be_bytes).map_err(|_| damaged())?;
            Ok(Head { sum: Sum::from_bytes(sum), keys })
        }
        None => Err(damaged()),
    }
}

pub(super) fn seal_tenant(sealer: &Sealer, tenant: &[u8], epoch: i64, head: Head) -> Result<Vec<u8>, Error> {
    let number = u64::try_from(epoch).map_err(|_| damaged())?;
    sealer.close((TENANT, tenant), number, [&head.sum.to_bytes()[..], &head.keys.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_forget_order_and_what_was_removed() {
        let element = |n: u8| std::array::from_fn(|at| n.wrapping_mul(151).wrapping_add(at as u8 * 7) | 0x80);
        let sum = |all: &[u8]| all.iter().fold(Sum::default(), |mut sum, n| (sum.add(element(*n)), sum).1);
        assert_eq!(sum(&[1, 2, 3]), sum(&[3, 1, 2]));
        assert_ne!(sum(&[1, 2, 3]), sum(&[1, 2]));
        assert_ne!(sum(&[1, 1]), sum(&[1]));
        let mut less = sum(&[1, 2, 3]);
        less.remove(element(2));
        assert_eq!(less, sum(&[1, 3]));
        assert_eq!(Sum::from_bytes(&less.to_bytes()), less);
        // Carries reach the upper half and leave at the top.
        let mut wrapping = Sum::default();
        wrapping.add([0xff; 32]);
        let mut one = [0; 32];
        one[31] = 1;
        wrapping.add(one);
        assert_eq!(wrapping, Sum::default());
        wrapping.remove(one);
        assert_eq!(wrapping.to_bytes(), [0xff; 32]);
    }

    #[test]
    fn the_head_of_a_tenant_is_read_in_both_forms() {
        let sealer = Sealer::new(&crate::secret::Key32::copy_of(&[1; 32]).unwrap(), "one").unwrap();
        let mut sum = Sum::default();
        sum.add([7; 32]);
        let head = Head { sum, keys: 5 };
        let sealed = seal_tenant(&sealer, b"acme", 9, head).unwrap();
        assert_eq!(open_tenant(&sealer, b"acme", 9, &sealed), Ok(head));
        assert!(
            open_tenant(&sealer, b"acme", 8, &sealed).is_err() && open_tenant(&sealer, b"acmf", 9, &sealed).is_err()
        );
        let close = |body: &[u8]| sealer.close((TENANT, b"acme"), 9, body.to_vec()).unwrap();
        let old = close(&sum.to_bytes());
        assert_eq!(open_tenant(&sealer, b"acme", 9, &old), Ok(Head { sum, keys: 9 }));
        for len in [0, 31, 33, 39, 41] {
            assert!(open_tenant(&sealer, b"acme", 9, &close(&vec![0; len])).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn every_part_of_a_link_counts() {
        let one = link(&[1; 32], 7, &[2; 32]);
        assert!(
            [link(&[3; 32], 7, &[2; 32]), link(&[1; 32], 8, &[2; 32]), link(&[1; 32], 7, &[3; 32])]
                .iter()
                .all(|other| *other != one)
        );
    }
}
