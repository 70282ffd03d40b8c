//! The ARN of a KMS key: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`.

use std::fmt;

use crate::error::Error;

/// What stands before the ARN in the id of a root key.
const PREFIX: &str = "aws-kms:";
/// Longest ARN, in bytes. Real ones have some 80.
const MAX: usize = 256;

/// The ARN of one KMS key. Aliases are refused: whoever may move an alias would choose the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyArn {
    text: String,
    /// End of `arn:PARTITION`, of the region and of the account, and the start of the key's id.
    partition: usize,
    region: (usize, usize),
    account: (usize, usize),
    id: usize,
}

/// Whether `text` could be a region: `eu-west-1`, `us-gov-east-1`.
pub(super) fn is_region(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (3..=32).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether `text` is an account's number.
pub(super) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

impl KeyArn {
    /// Reads an ARN.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `key ARN` for anything but the ARN of a key.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::read(text).ok_or_else(|| {
            Error::invalid("key ARN", "must be the ARN of a key: arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias")
        })
    }

    /// The ARN in the id of a root key, `aws-kms:` and the ARN; `None` for any other id.
    pub fn from_root_id(id: &str) -> Option<Self> {
        Self::read(id.strip_prefix(PREFIX)?)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut next = || parts.next();
        let (arn, partition, service, region, account, key) = (next()?, next()?, next()?, next()?, next()?, next()?);
        let id = key.strip_prefix("key/")?;
        let good_partition = partition == "aws"
            || partition
                .strip_prefix("aws-")
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        let good_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let good = parts.next().is_none()
            && arn == "arn"
            && good_partition
            && service == "kms"
            && is_region(region)
            && is_account(account)
            && good_id
            && text.len() <= MAX;
        let partition_end = "arn:".len() + partition.len();
        let region_start = partition_end + ":kms:".len();
        let account_start = region_start + region.len() + 1;
        good.then(|| Self {
            text: text.to_owned(),
            partition: partition_end,
            region: (region_start, region_start + region.len()),
            account: (account_start, account_start + account.len()),
            id: text.len() - id.len(),
        })
    }

    fn part(&self, from: usize, to: usize) -> &str {
        // INVARIANT: the positions were taken from this text.
        self.text.get(from..to).unwrap_or_default()
    }

    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region that the key lies in.
    pub fn region(&self) -> &str {
        self.part(self.region.0, self.region.1)
    }

    /// The account that owns the key: 12 digits.
    pub fn account(&self) -> &str {
        self.part(self.account.0, self.account.1)
    }

    /// The key's id within region and account.
    pub fn id(&self) -> &str {
        self.part(self.id, self.text.len())
    }

    /// The id of the root key: `aws-kms:` and the ARN.
    pub fn root_id(&self) -> String {
        format!("{PREFIX}{}", self.text)
    }

    /// Whether this is a multi-Region key: replicas of it, with the same id and material, may lie in other regions.
    pub fn is_multi_region(&self) -> bool {
        self.id().starts_with("mrk-")
    }

    /// Whether both name the same key material: the same ARN, or a multi-Region key of the same partition, account and
    /// id in another region. Ids of multi-Region keys are made by AWS, which gives one id to one set of replicas only.
    pub fn same_key(&self, other: &Self) -> bool {
        self == other
            || (self.is_multi_region()
                && self.part(0, self.partition) == other.part(0, other.partition)
                && self.account() == other.account()
                && self.id() == other.id())
    }

    /// The same multi-Region key's ARN in another region.
    pub(super) fn in_region(&self, region: &str) -> Option<Self> {
        let rest = self.text.get(self.region.1..)?;
        let front = self.text.get(..self.region.0)?;
        if self.is_multi_region() { Self::read(&format!("{front}{region}{rest}")) } else { None }
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const MULTI: &str = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";

    #[test]
    fn an_arn_is_taken_apart() {
        let arn = KeyArn::parse(KEY).unwrap();
        assert_eq!((arn.region(), arn.account()), ("eu-west-1", "111122223333"));
        assert_eq!(arn.id(), "1234abcd-12ab-34cd-56ef-1234567890ab");
        assert!(!arn.is_multi_region());
        assert_eq!(KeyArn::from_root_id(&arn.root_id()), Some(arn));
        let gov = KeyArn::parse("arn:aws-us-gov:kms:us-gov-east-1:111122223333:key/1234").unwrap();
        assert_eq!(gov.region(), "us-gov-east-1");
    }

    #[test]
    fn what_is_not_a_key_arn_is_refused() {
        for bad in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/vault",
            "arn:aws:kms:eu-west-1:111122223333:alias/vault",
            "arn:aws:kms:eu-west-1:111122223333:key/",
            "arn:aws:kms:eu-west-1:111122223333:key/a/b",
            "arn:aws:kms:eu-west-1:111122223333:key/A",
            "arn:aws:kms:eu-west-1:111122223333:key/a:b",
            "arn:aws:kms:eu-west-1:11112222333:key/a",
            "arn:aws:kms:eu-west-1::key/a",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:kms:eu_west_1:111122223333:key/a",
            "arn:aws:s3:eu-west-1:111122223333:key/a",
            "arn:awsx:kms:eu-west-1:111122223333:key/a",
            "arn:aws-:kms:eu-west-1:111122223333:key/a",
            " arn:aws:kms:eu-west-1:111122223333:key/a",
            &format!("arn:aws:kms:eu-west-1:111122223333:key/{}", "a".repeat(MAX)),
        ] {
            assert!(matches!(KeyArn::parse(bad), Err(Error::Invalid { field, .. }) if field == "key ARN"), "{bad}");
        }
        assert_eq!(KeyArn::from_root_id("local:0011"), None);
        assert_eq!(KeyArn::from_root_id(KEY), None);
    }

    #[test]
    fn only_replicas_of_a_multi_region_key_are_the_same_key() {
        let (key, multi) = (KeyArn::parse(KEY).unwrap(), KeyArn::parse(MULTI).unwrap());
        let change = |of: &KeyArn, from: &str, to: &str| KeyArn::parse(&of.as_str().replace(from, to)).unwrap();
        assert!(key.same_key(&key) && multi.same_key(&multi) && !key.same_key(&multi));
        assert!(!key.same_key(&change(&key, "eu-west-1", "us-east-1")));
        let replica = change(&multi, "eu-west-1", "us-east-1");
        assert!(multi.same_key(&replica));
        assert_eq!(multi.in_region("us-east-1"), Some(replica));
        assert_eq!(key.in_region("us-east-1"), None);
        assert!(!multi.same_key(&change(&multi, "111122223333", "444455556666")));
        assert!(!multi.same_key(&change(&multi, "mrk-1234", "mrk-1235")));
        assert!(!multi.same_key(&change(&multi, "arn:aws:", "arn:aws-cn:")));
    }
}
