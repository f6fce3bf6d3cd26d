//! The handshake: Node connects, says Hello, and is as sealed as promised.

use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::io::ReadExt;
use async_std::os::unix::net::{UnixListener, UnixStream};

use sluice_proto::codec;
use sluice_proto::harness::{FromRuntime, Posture};

use crate::config::Sandbox;
use crate::runtime::Error;
use crate::runtime::harness::Greeted;

/// How long the Hello may take once Node has connected: it is the first thing it writes.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// The largest Hello, in bytes; ours has about 200.
const HELLO_BYTES_MAX: usize = 4 * 1024;

/// Waits for Node to connect and to say Hello.
pub(in crate::runtime) async fn greet(
    listener: &UnixListener,
    sandbox: Sandbox,
) -> Result<Greeted, Error> {
    let begun = Instant::now();
    let (mut stream, _) = listener
        .accept()
        .await
        .map_err(|error| Error::Handshake(format!("accepting its connection failed: {error}")))?;
    let connected = Instant::now();
    let hello = timeout(HELLO_MAX, read_hello(&mut stream))
        .await
        .map_err(|_| Error::Handshake("it connected but said no Hello".into()))??;
    let FromRuntime::Hello {
        protocol,
        node,
        posture,
    } = hello
    else {
        return Err(Error::Handshake("its first message is no Hello".into()));
    };
    sluice_proto::check_protocol(protocol).map_err(Error::Handshake)?;
    sealed(&posture, sandbox).map_err(Error::NotSealed)?;
    let boot_us = (connected - begun).as_micros() as u64;
    let hello_us = connected.elapsed().as_micros() as u64;
    tracing::debug!(node, boot_us, hello_us, "A harness said Hello");
    Ok(Greeted { stream, node })
}

/// Whether a container is as tight as promised; if not, each thing that is not.
/// gVisor tells nothing of filter and privileges: `launch` looks at those from outside.
pub(in crate::runtime) fn sealed(posture: &Posture, sandbox: Sandbox) -> Result<(), String> {
    let hosts_kernel = sandbox == Sandbox::Container;
    let faults = [
        (
            posture.gvisor == hosts_kernel,
            format!(
                "its kernel is {}",
                if posture.gvisor {
                    "gVisor's"
                } else {
                    "the host's, and gVisor was asked for"
                }
            ),
        ),
        (posture.uid == 0, "Node runs as root".to_owned()),
        (
            hosts_kernel && !posture.no_new_privileges,
            "new privileges can be gained (NoNewPrivs is 0)".to_owned(),
        ),
        (
            posture.capabilities != 0,
            format!("it has capabilities ({:#x})", posture.capabilities),
        ),
        (
            hosts_kernel && posture.seccomp != 2,
            format!("no seccomp filter is on (mode {})", posture.seccomp),
        ),
        (posture.root_writable, "its root can be written".to_owned()),
    ];
    let said: Vec<_> = faults
        .into_iter()
        .filter_map(|(is, what)| is.then_some(what))
        .collect();
    if said.is_empty() {
        Ok(())
    } else {
        Err(said.join("; "))
    }
}

async fn read_hello(stream: &mut UnixStream) -> Result<FromRuntime, Error> {
    let failed =
        |error: std::io::Error| Error::Handshake(format!("it hung up before Hello: {error}"));
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(failed)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > HELLO_BYTES_MAX {
        return Err(Error::Handshake(format!("its Hello has {length} bytes")));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await.map_err(failed)?;
    codec::decode(&frame, HELLO_BYTES_MAX).map_err(|error| Error::Handshake(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_with_a_hole_is_not_sealed_and_each_hole_is_named() {
        let tight = Posture {
            uid: 1000,
            no_new_privileges: true,
            capabilities: 0,
            seccomp: 2,
            root_writable: false,
            gvisor: false,
        };
        assert_eq!(sealed(&tight, Sandbox::Container), Ok(()));
        assert!(sealed(&tight, Sandbox::Gvisor).is_err(), "it is not gVisor");
        let gvisor = Posture {
            no_new_privileges: false,
            seccomp: 0,
            gvisor: true,
            ..tight.clone()
        };
        assert_eq!(sealed(&gvisor, Sandbox::Gvisor), Ok(()));
        let holes = [
            gvisor,
            Posture {
                uid: 0,
                ..tight.clone()
            },
            Posture {
                no_new_privileges: false,
                ..tight.clone()
            },
            Posture {
                capabilities: 1,
                ..tight.clone()
            },
            Posture {
                seccomp: 0,
                ..tight.clone()
            },
            Posture {
                root_writable: true,
                ..tight.clone()
            },
        ];
        for hole in holes {
            assert!(sealed(&hole, Sandbox::Container).is_err(), "{hole:?}");
        }
    }
}
