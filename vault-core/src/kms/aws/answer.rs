//! What an answer of KMS means. AWS's own message texts are never passed on: they can quote the request.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use zeroize::Zeroizing;

use super::arn::KeyArn;
use crate::kms::RootError;
use crate::secret::Key32;

/// Longest ciphertext that KMS makes or takes, in bytes (`CiphertextBlob` of Decrypt, AWS KMS API Reference).
pub(super) const MAX_CIPHERTEXT: usize = 6144;

pub(super) const TIMEOUT: &str = "AWS KMS did not answer in time";
pub(super) const UNREACHABLE: &str = "AWS KMS cannot be reached, or the connection broke";
pub(super) const THROTTLED: &str = "AWS KMS answers that it is asked too often";
pub(super) const FAILING: &str = "AWS KMS answers that it has failed";
pub(super) const GARBLED: &str = "the answer of AWS KMS makes no sense";
pub(super) const CREDENTIALS: &str = "there are no AWS credentials";
pub(super) const REFUSED_CREDENTIALS: &str = "AWS does not accept the credentials";
pub(super) const REFUSED_REQUEST: &str = "AWS KMS does not accept the request";

/// Why an attempt came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// KMS said so; asking again changes nothing.
    Final(RootError),
    /// No use asking again, though nothing was said about the key.
    Hopeless(&'static str),
    /// Another attempt may do better.
    Passing(&'static str),
}

/// What an error of the SDK means.
pub(super) fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::TimeoutError(_) => Failure::Passing(TIMEOUT),
        SdkError::ServiceError(refused) => by_code(refused.err().code(), refused.raw().status().as_u16()),
        SdkError::ResponseError(_) => Failure::Passing(GARBLED),
        // Signing comes before sending, so missing credentials look like a connection that could not be made.
        other if caused_by_credentials(other) => Failure::Hopeless(CREDENTIALS),
        SdkError::DispatchFailure(_) => Failure::Passing(UNREACHABLE),
        _ => Failure::Hopeless(REFUSED_REQUEST),
    }
}

fn caused_by_credentials(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<CredentialsError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// By the error codes of the AWS KMS API Reference ("Errors" of Decrypt, Encrypt, GenerateDataKey; "Common Errors").
fn by_code(code: Option<&str>, status: u16) -> Failure {
    match code.unwrap_or_default() {
        "DisabledException" => Failure::Final(RootError::Disabled),
        "KMSInvalidStateException" | "InvalidKeyUsageException" => Failure::Final(RootError::InvalidState),
        "AccessDeniedException" => Failure::Final(RootError::Forbidden),
        "NotFoundException" => Failure::Final(RootError::Missing),
        "InvalidCiphertextException" | "IncorrectKeyException" => Failure::Final(RootError::NotMine),
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "LimitExceededException" => Failure::Passing(THROTTLED),
        "KMSInternalException"
        | "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Failure::Passing(FAILING),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "OptInRequired" => Failure::Hopeless(REFUSED_CREDENTIALS),
        _ if status == 429 => Failure::Passing(THROTTLED),
        _ if status >= 500 => Failure::Passing(FAILING),
        // A success that cannot be read, or no JSON where there should be some: damaged under way.
        "" => Failure::Passing(GARBLED),
        _ => Failure::Hopeless(REFUSED_REQUEST),
    }
}

/// The name of the key that answered must be that of the key that was asked.
pub(super) fn check_key(expected: &KeyArn, answered: Option<&str>) -> Result<(), Failure> {
    let Some(answered) = answered else { return Err(Failure::Passing(GARBLED)) };
    match KeyArn::parse(answered) {
        Ok(answered) if expected.same_key(&answered) => Ok(()),
        _ => Err(Failure::Final(RootError::WrongKey)),
    }
}

/// Takes the plaintext out of an answer: into a buffer that is wiped, whatever becomes of the answer.
pub(super) fn plaintext(blob: Option<Blob>) -> Zeroizing<Vec<u8>> {
    // `into_inner` gives the SDK's own allocation, not a copy.
    Zeroizing::new(blob.map(Blob::into_inner).unwrap_or_default())
}

/// A tenant key from a plaintext: 32 bytes exactly.
pub(super) fn key(bytes: &Zeroizing<Vec<u8>>) -> Result<Key32, Failure> {
    let bytes = bytes.as_slice().try_into().map_err(|_| Failure::Passing(GARBLED))?;
    Key32::copy_of(bytes).map_err(|_| Failure::Hopeless("no locked memory for a root key's answer"))
}

/// A ciphertext from an answer.
pub(super) fn ciphertext(blob: Option<Blob>) -> Result<Vec<u8>, Failure> {
    let bytes = blob.map(Blob::into_inner).unwrap_or_default();
    if bytes.is_empty() || bytes.len() > MAX_CIPHERTEXT { Err(Failure::Passing(GARBLED)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234";

    #[test]
    fn each_code_says_what_became_of_the_key() {
        let table = [
            ("DisabledException", 400, Failure::Final(RootError::Disabled)),
            ("KMSInvalidStateException", 400, Failure::Final(RootError::InvalidState)),
            ("InvalidKeyUsageException", 400, Failure::Final(RootError::InvalidState)),
            ("AccessDeniedException", 400, Failure::Final(RootError::Forbidden)),
            ("NotFoundException", 400, Failure::Final(RootError::Missing)),
            ("InvalidCiphertextException", 400, Failure::Final(RootError::NotMine)),
            ("IncorrectKeyException", 400, Failure::Final(RootError::NotMine)),
            ("ThrottlingException", 400, Failure::Passing(THROTTLED)),
            ("KMSInternalException", 500, Failure::Passing(FAILING)),
            ("KeyUnavailableException", 500, Failure::Passing(FAILING)),
            ("ExpiredTokenException", 400, Failure::Hopeless(REFUSED_CREDENTIALS)),
            ("ValidationException", 400, Failure::Hopeless(REFUSED_REQUEST)),
            ("SomethingNew", 400, Failure::Hopeless(REFUSED_REQUEST)),
            ("SomethingNew", 429, Failure::Passing(THROTTLED)),
            ("SomethingNew", 503, Failure::Passing(FAILING)),
            ("", 200, Failure::Passing(GARBLED)),
            ("", 404, Failure::Passing(GARBLED)),
        ];
        for (code, status, expected) in table {
            assert_eq!(by_code(Some(code), status), expected, "{code} {status}");
        }
        assert_eq!(by_code(None, 502), Failure::Passing(FAILING));
    }

    #[test]
    fn another_keys_answer_is_an_alarm_and_a_nameless_one_is_none() {
        let expected = KeyArn::parse(KEY).unwrap();
        assert_eq!(check_key(&expected, Some(KEY)), Ok(()));
        assert_eq!(check_key(&expected, None), Err(Failure::Passing(GARBLED)));
        let others = [KEY.replace("1234", "1235"), KEY.replace("eu-west-1", "eu-west-2"), "1234".into(), String::new()];
        for other in others {
            assert_eq!(check_key(&expected, Some(&other)), Err(Failure::Final(RootError::WrongKey)), "{other}");
        }
    }

    #[test]
    fn a_plaintext_of_another_length_is_no_key() {
        for len in [0, 1, 31, 33, 64] {
            let bytes = plaintext(Some(Blob::new(vec![7; len])));
            assert_eq!(key(&bytes).err(), Some(Failure::Passing(GARBLED)), "{len}");
        }
        assert_eq!(key(&plaintext(None)).err(), Some(Failure::Passing(GARBLED)));
        assert_eq!(key(&plaintext(Some(Blob::new([7; 32])))).unwrap().expose().unwrap(), &[7; 32]);
        assert!(ciphertext(None).is_err() && ciphertext(Some(Blob::new(vec![0; MAX_CIPHERTEXT + 1]))).is_err());
    }
}
