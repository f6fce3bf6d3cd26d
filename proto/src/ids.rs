//! Newtypes for identifiers, so that none is passed where another is meant.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

id!(
    /// One job, for its whole life: a UUIDv7 made when the job is created and
    /// carried unchanged over every hop.
    JobId
);
id!(
    /// An agent pool: a UUIDv7.
    PoolId
);
id!(
    /// A project: a UUIDv7.
    ProjectId
);
id!(
    /// One bridge's live websocket, named by the gateway.
    SessionId
);
id!(
    /// The SHA-256 of a bundle, as 64 lower-case hex digits.
    Digest
);
