//! What a bridge or a gateway sends over the websocket, whoever it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_proto::codec::{FRAME_BYTES_MAX, decode, encode};
use sluice_proto::frame::{FromBridge, FromGateway};

fuzz_target!(|bytes: &[u8]| {
    // What was understood can be said again, and means the same.
    if let Ok(frame) = decode::<FromBridge>(bytes, FRAME_BYTES_MAX)
        && let Ok(again) = encode(&frame, FRAME_BYTES_MAX)
    {
        assert_eq!(decode::<FromBridge>(&again, FRAME_BYTES_MAX).ok(), Some(frame));
    }
    if let Ok(frame) = decode::<FromGateway>(bytes, FRAME_BYTES_MAX)
        && let Ok(again) = encode(&frame, FRAME_BYTES_MAX)
    {
        assert_eq!(decode::<FromGateway>(&again, FRAME_BYTES_MAX).ok(), Some(frame));
    }
});
