//! What lies in the broker's queues, whoever put it there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_proto::codec::{QUEUE_MESSAGE_BYTES_MAX, decode, encode};
use sluice_proto::job::Job;
use sluice_proto::queue::{Control, Presence};
use sluice_proto::report::Report;

macro_rules! round_trip {
    ($bytes:expr, $($message:ty),+) => {
        $(if let Ok(message) = decode::<$message>($bytes, QUEUE_MESSAGE_BYTES_MAX)
            && let Ok(again) = encode(&message, QUEUE_MESSAGE_BYTES_MAX)
        {
            let same = decode::<$message>(&again, QUEUE_MESSAGE_BYTES_MAX).ok();
            assert_eq!(same, Some(message));
        })+
    };
}

fuzz_target!(|bytes: &[u8]| {
    round_trip!(bytes, Job, Report, Control, Presence);
});
