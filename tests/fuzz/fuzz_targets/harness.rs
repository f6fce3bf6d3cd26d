//! What a runtime says over its socket: user code may have forged it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_proto::codec::{HARNESS_MESSAGE_BYTES_MAX, decode, encode};
use sluice_proto::harness::{FromRuntime, ToRuntime};

macro_rules! round_trip {
    ($bytes:expr, $($message:ty),+) => {
        $(if let Ok(message) = decode::<$message>($bytes, HARNESS_MESSAGE_BYTES_MAX)
            && let Ok(again) = encode(&message, HARNESS_MESSAGE_BYTES_MAX)
        {
            let same = decode::<$message>(&again, HARNESS_MESSAGE_BYTES_MAX).ok();
            assert_eq!(same, Some(message));
        })+
    };
}

fuzz_target!(|bytes: &[u8]| {
    round_trip!(bytes, FromRuntime, ToRuntime);
});
