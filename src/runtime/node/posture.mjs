// What the harness finds inside its container, before any user code is loaded:
// the worker destroys a runtime that is not sealed. What cannot be read counts
// as unsealed.

import fs from 'node:fs';

/** The `Posture` of the contract. */
export function takePosture() {
  const status = readStatus();
  const number = (name, base) => {
    const line = status.find((text) => text.startsWith(`${name}:`));
    return line === undefined ? undefined : BigInt(base + line.slice(name.length + 1).trim().split(/\s+/)[0]);
  };
  const unknown = 0xffffffffffffffffn;
  const capabilities = ['CapEff', 'CapPrm', 'CapBnd'].reduce((all, name) => all | (number(name, '0x') ?? unknown), 0n);
  return {
    uid: process.geteuid(),
    no_new_privileges: number('NoNewPrivs', '') === 1n,
    capabilities: capabilities <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(capabilities) : capabilities,
    seccomp: Number(number('Seccomp', '') ?? 0n),
    root_writable: rootIsWritable(),
    ...(status.length > 0 && isGvisor(status) ? { gvisor: true } : {}),
  };
}

/** gVisor's kernel names one version for ever, and says nothing of privileges. */
function isGvisor(status) {
  if (status.some((text) => text.startsWith('NoNewPrivs:'))) return false;
  try {
    return fs.readFileSync('/proc/version', 'utf8').startsWith('Linux version 4.4.0 ');
  } catch {
    return false;
  }
}

function readStatus() {
  try {
    return fs.readFileSync('/proc/self/status', 'utf8').split('\n');
  } catch {
    return [];
  }
}

function rootIsWritable() {
  const path = `/.sluice-posture-${process.pid}-${Date.now()}`;
  try {
    fs.writeFileSync(path, '');
  } catch {
    return false;
  }
  fs.unlinkSync(path);
  return true;
}
