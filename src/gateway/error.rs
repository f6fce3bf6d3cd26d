//! What the store's errors mean at the edge of the gateway's API.

use crate::store;

// The edge itself is the HTTP door's; here it keeps the name the gateway's handlers know.
pub use crate::http::ApiError;

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Taken(sentence) => Self::conflict(sentence),
            store::Error::Missing(what) => Self::not_found(what),
            error if error.is_transient() => Self {
                cause: Some(error.to_string()),
                ..Self::later(503, "the gateway's store cannot do this at present", 2)
            },
            error => Self::internal(error),
        }
    }
}
