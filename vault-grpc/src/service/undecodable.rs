//! A request that is not a message of its type. tonic answers `INTERNAL`; but it is the request that is wrong, and the
//! decoder knows where.

use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};
use vault_core::Error;

use crate::status;

/// What prost's decode error starts with; then `Message.field: ` for each level, outermost first, then what is wrong.
const DECODING: &str = "failed to decode Protobuf message: ";

/// Makes the answer to an undecodable request `INVALID_ARGUMENT` with its field named; leaves every other as it is.
pub(crate) fn mend(answer: Response<Body>) -> Response<Body> {
    // An answer with messages carries no status in its headers.
    if !answer.headers().contains_key(Status::GRPC_STATUS) {
        return answer;
    }
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() == Code::Internal => match status.message().strip_prefix(DECODING) {
            Some(rest) => {
                status::status(&Error::invalid(field(rest), "is not encoded as its type demands")).into_http()
            }
            None => answer,
        },
        _ => answer,
    }
}

/// The same for a message in mid-stream.
pub(crate) fn mend_status(status: Status) -> Status {
    match status.message().strip_prefix(DECODING) {
        Some(rest) if status.code() == Code::Internal => {
            status::status(&Error::invalid(field(rest), "is not encoded as its type demands"))
        }
        _ => status,
    }
}

/// The path of the field, without the names of the messages; `request` if the error is in none.
fn field(rest: &str) -> String {
    let levels = rest.split(": ").map_while(|level| {
        let (message, field) = level.split_once('.')?;
        let named = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (named(message) && named(field)).then_some(field)
    });
    let path = levels.collect::<Vec<_>>().join(".");
    if path.is_empty() { "request".to_owned() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_what_the_decoder_named() {
        assert_eq!(field("EncryptRequest.tenant: invalid string value: data is not UTF-8 encoded"), "tenant");
        assert_eq!(field("BatchEncryptRequest.items: BatchEncryptItem.dataset: invalid varint"), "items.dataset");
        assert_eq!(field("buffer underflow"), "request");
    }

    #[test]
    fn other_answers_are_left_alone() {
        for status in [Status::internal("something else"), Status::not_found("x")] {
            let code = status.code();
            let mended = mend(status.into_http());
            assert_eq!(Status::from_header_map(mended.headers()).unwrap().code(), code);
        }
    }
}
