//! Arguments → telemetry → settings → role → exit code.

use sluice::{cli, config};

fn main() {
    let code = match cli::parse(std::env::args_os()) {
        Ok(command) => command.execute(&config::from_env),
        Err(code) => code,
    };
    // Blocking threads may sit in a read that never ends; nothing waits for them.
    std::process::exit(code);
}
