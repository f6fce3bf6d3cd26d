//! The escape suite: what hostile code in a runtime tries, and what it gets.
//! Each attempt is contained, its cause is told truthfully, and the next job of
//! another identity runs as fast as before.
//!
//! Needs Podman as an ordinary user with the runtime image built. The hostile
//! apps are in `tests/apps/escape`.

#[path = "support/runtimes.rs"]
mod runtimes;

#[path = "escape/files.rs"]
mod files;
#[path = "escape/forgery.rs"]
mod forgery;
#[path = "escape/harm.rs"]
mod harm;
#[path = "escape/kernel.rs"]
mod kernel;
#[path = "escape/network.rs"]
mod network;
#[path = "escape/pace.rs"]
mod pace;
#[path = "escape/processors.rs"]
mod processors;

use runtimes::Engine;
use sluice::config::Sandbox;

/// Every attempt, against the host's kernel behind its filter and against gVisor.
macro_rules! attempts {
    ($($module:ident::$name:ident,)*) => {
        mod container {
            use super::Engine;
            $(#[async_std::test]
            async fn $name() {
                crate::$module::$name(Engine::start().await).await;
            })*
        }
        mod gvisor {
            use super::{Engine, Sandbox, has_gvisor};
            $(#[async_std::test]
            async fn $name() {
                if has_gvisor() {
                    crate::$module::$name(Engine::of(Sandbox::Gvisor).await).await;
                }
            })*
        }
    };
}

attempts! {
    files::files_sockets_and_processes_of_others_are_not_there,
    files::nothing_can_be_written_but_a_little_memory_and_nothing_brought_along_runs,
    forgery::a_lie_ends_the_runtime_that_tells_it_and_touches_no_other,
    forgery::sdk_calls_are_bounded_and_belong_to_the_invocation_that_makes_them,
    harm::each_excess_is_contained_and_told_and_nobody_else_notices,
    harm::a_log_is_cut_and_what_is_cut_is_counted,
    kernel::the_kernel_refuses_what_would_lead_out,
    network::metadata_link_local_and_the_host_are_closed_in_every_policy,
    network::a_private_network_reaches_what_is_allowed_and_no_more,
    processors::a_hog_gets_its_processors_and_no_more,
}

/// Provisioning installs it where the distribution has it.
fn has_gvisor() -> bool {
    let places = ["/usr/bin/runsc", "/usr/sbin/runsc", "/usr/local/bin/runsc"];
    let found = places
        .iter()
        .any(|place| std::path::Path::new(place).exists());
    if !found {
        println!("runsc is not installed: gVisor is not tested on this machine");
    }
    found
}
