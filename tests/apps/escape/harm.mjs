// Takes all it can get of one thing at a time, and lies to its worker.

import fs from 'node:fs';
import { execFile, spawn } from 'node:child_process';
import { Worker } from 'node:worker_threads';

import { events, kv } from '@slflows/sdk/v1';

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const never = () => new Promise(() => {});
const outcome = (error) => error?.code ?? error?.message ?? 'done';

const harm = {
  /** Each child starts more; what stops them is told. */
  async fork() {
    const bomb = 'for (;;) { try { require("child_process").spawn(process.execPath, ["-e", process.argv[1], process.argv[1]]).on("error", () => {}) } catch {} }';
    const failed = [];
    for (let at = 0; at < 200 && failed.length === 0; at++) {
      const child = spawn(process.execPath, ['-e', bomb, bomb], { stdio: 'ignore' });
      child.on('error', (error) => failed.push(error.code));
      await sleep(5);
    }
    return failed[0] ?? 'endless';
  },
  heap() {
    for (const all = []; ;) all.push(new Array(1e5).fill(1.5));
  },
  buffers() {
    for (const all = []; ;) all.push(Buffer.alloc(16e6, 1));
  },
  async shared() {
    for (const all = []; ; await sleep(1)) all.push(new Uint8Array(new SharedArrayBuffer(16e6)).fill(1));
  },
  async wasm() {
    const all = [];
    for (; ; await sleep(1)) all.push(new Uint8Array(new WebAssembly.Memory({ initial: 250 }).buffer).fill(1));
  },
  /** The memory of its children is its own. */
  async children() {
    const hog = 'const all = []; setInterval(() => all.push(Buffer.alloc(4e6, 1)), 5)';
    execFile(process.execPath, ['-e', hog], () => {});
    execFile(process.execPath, ['-e', hog], () => {});
    return never();
  },
  /** Spins, but lets others in. */
  async spin() {
    for (;;) await new Promise(setImmediate);
  },
  block() {
    for (;;);
  },
  /** Computes in threads and in processes, all at once. */
  processors() {
    for (let at = 0; at < 2; at++) {
      spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }).on('error', () => {});
      new Worker('for (;;);', { eval: true }).on('error', () => {});
    }
    return never();
  },
  regexp: () => /^(a+)+$/.test(`${'a'.repeat(40)}b`),
  never,
  exit: () => process.exit(3),
  abort: () => process.abort(),
  /** Ten times what it may log, and as much past the harness. */
  log() {
    for (let at = 0; at < 10_000; at++) console.log('x'.repeat(1000));
    for (let at = 0; at < 1_000; at++) {
      try {
        fs.writeSync(2, 'y'.repeat(64_000));
      } catch {
        // Nobody reads as fast as that.
      }
    }
    return 'done';
  },
  files() {
    const open = [];
    try {
      for (;;) open.push(fs.openSync('/sluice/harness.cjs'));
    } catch (error) {
      return `${error.code} after ${open.length}`;
    } finally {
      open.forEach((file) => fs.closeSync(file));
    }
  },
  /** As many as there are, and it keeps them. */
  keepFiles() {
    globalThis.kept = [];
    try {
      for (;;) kept.push(fs.openSync('/sluice/harness.cjs'));
    } catch (error) {
      return error.code;
    }
  },
  result: () => 'x'.repeat(5 * 1024 * 1024),
  deep() {
    let value = [];
    for (let at = 0; at < 100_000; at++) value = [value];
    return value;
  },
  /** Everything that JavaScript lets an app change under the harness. */
  pollute() {
    const lie = () => 'a lie';
    for (const owner of [Array.prototype, Map.prototype, Set.prototype, String.prototype, Promise.prototype, Buffer.prototype, Uint8Array.prototype]) {
      for (const name of Object.getOwnPropertyNames(owner)) {
        if (name !== 'constructor') try { owner[name] = lie; } catch { /* Not all can be. */ }
      }
    }
    JSON.parse = JSON.stringify = Object.keys = Reflect.apply = Buffer.from = lie;
    globalThis.setImmediate = process.nextTick = globalThis.queueMicrotask = lie;
    return 'done';
  },
};
globalThis.harm = harm;

const connection = () => fs.readdirSync('/proc/self/fd').map(Number).find((fd) => {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
  } catch {
    return false;
  }
});

/** The msgpack of what the lies are made of. */
function pack(value) {
  const long = (byte, length) => Buffer.from([byte, length >>> 24, length >>> 16, length >>> 8, length]);
  if (typeof value === 'boolean') return Buffer.from([value ? 0xc3 : 0xc2]);
  if (typeof value === 'number') return long(0xce, value);
  if (typeof value === 'string') return Buffer.concat([long(0xdb, Buffer.byteLength(value)), Buffer.from(value)]);
  if (Buffer.isBuffer(value)) return Buffer.concat([long(0xc6, value.length), value]);
  const pairs = Object.entries(value).flatMap(([key, one]) => [pack(key), pack(one)]);
  return Buffer.concat([long(0xdf, pairs.length / 2), ...pairs]);
}

/** Says anything to the worker, as if it were the harness. */
globalThis.forge = (messages) => {
  let frames = [];
  for (const message of messages) {
    for (const part of Object.values(message)) if (typeof part?.result === 'string') part.result = Buffer.from(part.result);
    for (const part of Object.values(message)) if (typeof part?.args === 'string') part.args = Buffer.from(part.args);
    const body = pack(message);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    frames = [...frames, length, body];
  }
  fs.writeSync(connection(), Buffer.concat(frames));
  return never();
};
globalThis.garbage = (base64) => {
  fs.writeSync(connection(), Buffer.from(base64, 'base64'));
  return never();
};

export const app = {
  name: 'Harm',
  blocks: {
    calls: {
      name: 'Calls',
      /** More calls than may be unanswered. */
      async onSync() {
        const all = Array.from({ length: 3000 }, (_, at) => kv.app.get(`key ${at}`).then(() => 'answered', (error) => error.message));
        return [...new Set(await Promise.all(all))];
      },
    },
    bytes: {
      name: 'Bytes',
      /** More bytes than calls may hold. */
      async onSync() {
        const value = 'x'.repeat(3 * 1024 * 1024);
        const all = Array.from({ length: 40 }, () => kv.app.set({ key: 'k', value }).then(() => 'answered', (error) => error.message));
        const size = events.emit('x'.repeat(5 * 1024 * 1024)).then(() => 'answered', (error) => error.message);
        return [...new Set(await Promise.all([...all, size]))];
      },
    },
    keep: {
      name: 'Keep',
      /** Leaves a way to call in its name behind. */
      onSync({ block }) {
        const { AsyncResource } = process.getBuiltinModule('node:async_hooks');
        globalThis.borrowed = AsyncResource.bind(() => kv.block.set({ key: 'owner', value: block.id }));
      },
    },
    borrow: {
      name: 'Borrow',
      /** Calls in the name of the invocation before it. */
      onSync: () => borrowed().then(() => 'called', (error) => error.message),
    },
  },
};
