//! Msgpack with named fields, and the limits every reader applies before it decodes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest websocket message, either way, in bytes. It carries one result
/// or payload of [`PAYLOAD_BYTES_MAX`] with its log tail and still has room.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The largest body of one AMQP message, in bytes.
pub const QUEUE_MESSAGE_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The largest message between worker and harness, in bytes, without its
/// four-byte length.
pub const HARNESS_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The largest JSON payload of a job, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest JSON result of a job, in bytes.
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a message could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Larger than the conversation's limit; nothing was decoded.
    TooLarge { bytes: usize, bytes_max: usize },
    /// Not msgpack, or not of the expected shape.
    Malformed(String),
    /// The value cannot be written as msgpack.
    Unwritable(String),
}

/// Encodes `value` as msgpack with named fields, refusing more than `bytes_max`.
pub fn encode<T: Serialize>(value: &T, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|e| Error::Unwritable(e.to_string()))?;
    if bytes.len() > bytes_max {
        return Err(Error::TooLarge {
            bytes: bytes.len(),
            bytes_max,
        });
    }
    Ok(bytes)
}

/// Decodes one value, refusing more than `bytes_max` bytes before looking at them.
///
/// Trailing bytes are refused: a message is exactly one value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, Error> {
    if bytes.len() > bytes_max {
        return Err(Error::TooLarge {
            bytes: bytes.len(),
            bytes_max,
        });
    }
    // A cursor tells how far the value went; a reader by reference does not.
    let mut cursor = std::io::Cursor::new(bytes);
    let mut reader = rmp_serde::Deserializer::new(&mut cursor);
    let value = T::deserialize(&mut reader).map_err(|e| Error::Malformed(e.to_string()))?;
    if cursor.position() != bytes.len() as u64 {
        return Err(Error::Malformed(
            "bytes follow the end of the message".into(),
        ));
    }
    Ok(value)
}

// === impl Error ===

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge { bytes, bytes_max } => {
                write!(
                    f,
                    "message of {bytes} bytes is over the limit of {bytes_max}"
                )
            }
            Self::Malformed(why) => write!(f, "message is malformed: {why}"),
            Self::Unwritable(why) => write!(f, "message cannot be encoded: {why}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_its_limit_is_refused_before_decoding() {
        let error = decode::<String>(&[0xff; 10], 9).expect_err("ten bytes are over nine");
        assert_eq!(
            error,
            Error::TooLarge {
                bytes: 10,
                bytes_max: 9
            }
        );
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let bytes = encode(&("text".to_owned(), 7u8), 100).expect("it fits");
        let value: (String, u8) = decode(&bytes, 100).expect("it is what was encoded");
        assert_eq!(value, ("text".to_owned(), 7));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u8, 100).expect("a byte fits");
        bytes.push(0);
        assert!(matches!(
            decode::<u8>(&bytes, 100),
            Err(Error::Malformed(_))
        ));
    }
}
