// Plays the worker for one harness: listens on a socket, starts Node, speaks the contract.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { decode, encode } from '../../../src/runtime/node/codec.mjs';

export const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url));
const NODE_DIR = join(REPOSITORY, 'src/runtime/node');
/** Long enough for a loaded machine, short enough for a person. */
const ANSWER_MS_MAX = 15_000;

const SDK_DIR = 'node_modules/@slflows/sdk';

/**
 * The harness as modules of their own, `[path in the harness directory, path in the source]`,
 * by the list that the binary embeds them by. That they do the same as the one
 * script that it makes of them is tested beside that.
 */
export function embeddedFiles() {
  const list = readFileSync(join(REPOSITORY, 'src/runtime/node.rs'), 'utf8');
  const modules = [...list.matchAll(/\(\s*"([^"]+)",\s*include_str!\("node\/([^"]+)"\),?\s*\)/g)].map((found) => [found[1], found[2]]);
  return [...modules, [`${SDK_DIR}/package.json`, 'sdk/package.json'], [`${SDK_DIR}/v1.mjs`, 'sdk/v1.mjs']];
}

function layOut(dir) {
  for (const [path, source] of embeddedFiles()) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), readFileSync(join(NODE_DIR, source)));
  }
  mkdirSync(join(dir, 'run'));
}

/** One runtime: the harness in a process of its own, and this side of the conversation. */
export class Runtime {
  #socket;
  #received = Buffer.alloc(0);
  #waiting = [];
  #open = new Map();
  #next = 1;

  /** What the container's log would hold. */
  stderr = '';

  /** Starts a harness and waits for its hello. `answer(method, args, invocation)` answers SDK calls: a value, or an Error. */
  static async start({ answer = () => null, flags = [], env = {} } = {}) {
    const runtime = new Runtime();
    runtime.answer = answer;
    runtime.dir = mkdtempSync(join(tmpdir(), 'sluice-harness-'));
    layOut(runtime.dir);
    const server = net.createServer();
    await new Promise((done) => server.listen(join(runtime.dir, 'run/harness.sock'), done));
    runtime.process = spawn(process.env.SLUICE_TEST_NODE ?? process.execPath, [...flags, join(runtime.dir, 'harness.mjs')], {
      stdio: ['ignore', 'inherit', 'pipe'], env: { ...process.env, ...env },
    });
    runtime.process.stderr.on('data', (chunk) => { runtime.stderr += chunk; });
    runtime.exited = new Promise((done) => runtime.process.on('exit', (code, signal) => done({ code, signal })));
    runtime.#socket = await Promise.race([
      new Promise((done) => server.once('connection', done)),
      runtime.exited.then((how) => { throw new Error(`the harness ended with ${how.code}: ${runtime.stderr}`); }),
    ]);
    server.close();
    runtime.#socket.on('data', (chunk) => runtime.#take(chunk));
    runtime.#socket.on('error', () => {});
    runtime.exited.then(() => runtime.#fail(new Error(`the harness is gone: ${runtime.stderr}`)));
    runtime.hello = (await runtime.message('hello')).hello;
    return runtime;
  }

  /** A runtime for an app whose bundle is this code. */
  static async app(code, options) {
    const runtime = await Runtime.start(options);
    const reply = await runtime.load(code);
    if (reply === 'loaded') return runtime;
    await runtime.stop();
    throw new Error(`the bundle did not load: ${JSON.stringify(reply)}`);
  }

  static async flow(options) {
    const runtime = await Runtime.start(options);
    runtime.send({ load: {} });
    await runtime.message('loaded');
    return runtime;
  }

  /** Writes the bundle and loads it; answers the reply. */
  async load(code) {
    const bundle = join(this.dir, 'run/app.mjs');
    writeFileSync(bundle, code);
    this.send({ load: { bundle } });
    return this.message('loaded', 'load_failed');
  }

  /** Sends a message without waiting for anything. */
  send(message) {
    const body = encode(message);
    const frame = Buffer.alloc(4 + body.length);
    frame.writeUInt32BE(body.length);
    frame.set(body, 4);
    this.sendBytes(frame);
  }

  sendBytes(bytes) {
    this.#socket.write(bytes);
  }

  /** Stops and resumes reading what the harness sends. */
  pause() { this.#socket.pause(); }
  resume() { this.#socket.resume(); }

  /** Begins an invocation; `ended` of what it answers is its end. */
  begin(kind, payload, { logBytesMax = 1024 * 1024 } = {}) {
    const number = this.#next++;
    const invocation = { number, logs: [], calls: [], order: [] };
    invocation.ended = new Promise((done, failed) => {
      const timer = setTimeout(() => failed(new Error(`${kind} has not ended; ${this.stderr}`)), ANSWER_MS_MAX);
      this.#open.set(number, {
        invocation,
        done: (end) => { clearTimeout(timer); done(end); },
        failed: (error) => { clearTimeout(timer); failed(error); },
      });
    });
    invocation.ended.catch(() => {});
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : Buffer.from(JSON.stringify(payload));
    this.send({ invoke: { invocation: number, kind, log_bytes_max: logBytesMax, payload: bytes } });
    return invocation;
  }

  /** Waits until the container's log says so. */
  async complaint(words) {
    const until = performance.now() + ANSWER_MS_MAX;
    while (!words.test(this.stderr)) {
      if (performance.now() > until) throw new Error(`the container's log does not say ${words}: ${this.stderr}`);
      await new Promise((next) => setTimeout(next, 5));
    }
  }

  /** Runs an invocation to its end: `{ result } or { failure }`, with `logs`, `calls`, `dropped`. */
  async invoke(kind, payload, options) {
    const invocation = this.begin(kind, payload, options);
    return { ...invocation, ...(await invocation.ended) };
  }

  /** Runs `onEvent` of a block's input. */
  event(block, inputConfig = {}, { input = 'default', app = {}, config = {}, ...options } = {}) {
    return this.invoke('event', eventPayload(block, inputConfig, { input, app, config }), options);
  }

  evaluate(expressions, scope = {}, options = {}) {
    const all = typeof expressions === 'string' ? { value: expressions } : expressions;
    return this.invoke('evaluate', { expressions: all, scope }, options);
  }

  /** The next message that is one of these. */
  message(...names) {
    return new Promise((done, failed) => {
      const timer = setTimeout(() => failed(new Error(`no ${names.join(' or ')}; ${this.stderr}`)), ANSWER_MS_MAX);
      this.#waiting.push({ names, done: (message) => { clearTimeout(timer); done(message); }, failed: (error) => { clearTimeout(timer); failed(error); } });
    });
  }

  async stop() {
    this.#socket.end();
    const timer = setTimeout(() => this.process.kill('SIGKILL'), 2000);
    const how = await this.exited;
    clearTimeout(timer);
    rmSync(this.dir, { recursive: true, force: true });
    return how;
  }

  #take(chunk) {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    let at = 0;
    while (this.#received.length - at >= 4) {
      const length = this.#received.readUInt32BE(at);
      if (this.#received.length - at - 4 < length) break;
      this.#hear(decode(Buffer.from(this.#received.subarray(at + 4, at + 4 + length))));
      at += 4 + length;
    }
    this.#received = this.#received.subarray(at);
  }

  #hear(message) {
    const name = typeof message === 'string' ? message : Object.keys(message)[0];
    const body = typeof message === 'string' ? {} : message[name];
    const open = this.#open.get(body.invocation);
    open?.invocation.order.push(name);
    if (name === 'log') {
      if (open === undefined) throw new Error(`log for an invocation that is not open: ${body.text}`);
      open.invocation.logs.push({ level: body.level, text: body.text });
    } else if (name === 'call') this.#call(body, open?.invocation);
    else if (name === 'done' || name === 'failed') {
      this.#open.delete(body.invocation);
      const end = name === 'done' ? { result: JSON.parse(Buffer.from(body.result)) } : { failure: { ...body.failure } };
      open?.done({ ...end, dropped: body.log_bytes_dropped });
    }
    const index = this.#waiting.findIndex((one) => one.names.includes(name));
    if (index !== -1) this.#waiting.splice(index, 1)[0].done(message);
  }

  async #call(body, invocation) {
    const args = JSON.parse(Buffer.from(body.args));
    const call = { method: body.method, args, number: body.call };
    if (invocation === undefined) throw new Error(`${body.method} was called for an invocation that is not open`);
    invocation.calls.push(call);
    const answer = await this.answer(body.method, args, invocation);
    if (answer === undefined) return;
    this.reply(invocation.number, body.call, answer);
  }

  /** Answers a call with a value or an Error. */
  reply(invocation, call, answer) {
    this.send({
      called: {
        invocation, call,
        answer: answer instanceof Error ? { error: { message: answer.message } } : { value: { json: Buffer.from(JSON.stringify(answer)) } },
      },
    });
  }

  #fail(error) {
    for (const { failed } of this.#open.values()) failed(error);
    for (const { failed } of this.#waiting.splice(0)) failed(error);
    this.#open.clear();
  }
}

export function eventPayload(block, inputConfig, { input = 'default', app = {}, config = {} } = {}) {
  return {
    handler: { block, input },
    input: {
      app: { config: app, signals: {}, prompts: {}, http: { url: 'http://app.test' }, installationUrl: '' },
      block: { id: `${block}-1`, name: block, config },
      event: { id: 'event-1', inputConfig },
    },
  };
}

/** Loads `code` in a fresh runtime and gives it to `body`; the runtime is ended afterwards. */
export async function withApp(code, body, options) {
  const runtime = await Runtime.app(code, options);
  try {
    return await body(runtime);
  } finally {
    await runtime.stop();
  }
}

export async function withFlow(body, options) {
  const runtime = await Runtime.flow(options);
  try {
    return await body(runtime);
  } finally {
    await runtime.stop();
  }
}

/** An app whose block `one` runs this as its `onEvent`, with the SDK imported and `top` above it. */
export const appOf = (onEvent, top = '') => `
import { defineApp, events, kv, http, timers, messaging, lifecycle, blocks, ui } from '@slflows/sdk/v1';
${top}
export const app = defineApp({ blocks: { one: { name: 'One', inputs: { default: { onEvent: ${onEvent} } } } } });
`;
