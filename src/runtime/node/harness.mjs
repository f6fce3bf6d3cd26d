// The harness: Node's end of the conversation between a worker and its runtime.
//
//   connect ─▶ hello{posture} ─▶ load ─▶ loaded │ load_failed
//                                  invoke ─▶ log*, call* ─▶ done │ failed      any number at once
//                                  abort, ping
//
// What is promised: user code runs only after the posture was reported and the
// worker has given this process its identity; each invocation ends with one
// message; what an app does to JavaScript's built-ins does not reach the
// harness (primordials.mjs); an error nobody catches fails the invocation it
// belongs to and no other.
//
// What is not: app and harness share one process, and there is no wall between
// them. The socket is not handed out by any simple means (it is no global, not
// among the active handles, not the current async resource), but an inspector
// session, an async hook or a native trick finds it, and everything on it may
// be forged. The container is the wall, one process serves one identity, and
// the worker trusts nothing it hears here across identities.
//
// Needs Node 20 or later and nothing else. `node harness.mjs [SOCKET]`; runtimes
// run it as one script with all that it imports (src/runtime/node.rs).

import './primordials.mjs';

import { writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { captureOutput } from './capture.mjs';
import { describeApp } from './describe.mjs';
import { evaluate } from './evaluate.mjs';
import { Refusal, failureOf, messageOf } from './failure.mjs';
import { catchStrayErrors, guardProcess } from './guard.mjs';
import { callHandler, findHandler } from './handlers.mjs';
import { createInvocations, toJson } from './invocations.mjs';
import { loadApp } from './load.mjs';
import { bindCalls } from './port.mjs';
import { takePosture } from './posture.mjs';
import { JSONParse, Utf8Slice, createStorage, settled } from './primordials.mjs';
import { connect } from './wire.mjs';

/** What this harness speaks: PROTOCOL of the contract. */
const PROTOCOL = 1;
/** Exit codes: the worker is gone; the worker, or the harness, makes no sense. */
const EXIT_WORKER_GONE = 0;
const EXIT_SOFTWARE = 70;
/** When a runtime without an identity is a stem, that somebody will want to be quick. */
const READY_MS = 50;

const socketPath = process.argv[2] ?? fileURLToPath(new URL('./run/harness.sock', import.meta.url));
process.argv.length = 2;

const version = process.version;
/** Writes a line to the container's log, if it can be written. */
const complain = (text) => {
  try {
    writeSync(2, `sluice harness: ${text}\n`);
  } catch {
    // Nobody is there to hear it.
  }
};
/** `undefined` until loaded; `null` for a flow, which has no app. */
let app;
let exit = process.exit;

const wire = connect(socketPath, {
  onReady() {
    wire.send({ hello: { protocol: PROTOCOL, node: version, posture: takePosture() } });
    setTimeout(makeReady, READY_MS).unref();
  },
  onMessage,
  onEnd(error) {
    if (error !== undefined) complain(messageOf(error));
    exit(error === undefined ? EXIT_WORKER_GONE : EXIT_SOFTWARE);
  },
});
const invocations = createInvocations(wire, createStorage(), complain);
captureOutput(invocations);
bindCalls(invocations.call);
exit = guardProcess(wire, invocations).exit;
catchStrayErrors(invocations.stray);

function onMessage(message) {
  if (message.invoke !== undefined) invoke(message.invoke);
  else if (message.called !== undefined) invocations.called(message.called);
  else if (message.ping !== undefined) {
    wire.send({ pong: { number: message.ping.number } });
    wire.flush();
  } else if (message.abort !== undefined) invocations.abort(message.abort.invocation);
  else if (message.load !== undefined) load(message.load);
  else throw new TypeError('the worker sent a message that this harness does not know');
}

/** Loads what an app will import, while nobody waits. */
function makeReady() {
  // Whoever has an identity imports it anyway, or needs none of it.
  if (app === undefined) import(new URL('./node_modules/@slflows/sdk/v1.mjs', import.meta.url).href).catch(() => {});
}

function load({ bundle }) {
  if (app !== undefined) throw new TypeError('the worker gave this runtime a second identity');
  if (bundle === undefined || bundle === null) {
    app = null;
    invocations.loaded(true);
    wire.send('loaded');
    return;
  }
  const done = (loaded) => {
    app = loaded;
    invocations.loaded(true);
    wire.send('loaded');
  };
  const failed = (error) => {
    invocations.loaded(false);
    wire.send({ load_failed: { failure: failureOf(error, 'threw') } });
  };
  loadApp(bundle, done, failed);
}

function invoke(message) {
  if (invocations.has(message.invocation)) throw new TypeError('the worker used the number of an open invocation');
  const invocation = invocations.begin(message);
  const where = { __proto__: null, key: undefined };
  const failed = (error) => invocations.fail(invocation, error, 'threw', where.key);
  try {
    const payload = payloadOf(message.payload);
    const value = invocations.run(invocation, () => start(message.kind, payload, where));
    if (isThenable(value)) {
      settled(waitFor(value), (result) => finish(invocation, message.kind, result, where), failed);
    } else finish(invocation, message.kind, value, where);
  } catch (error) {
    failed(error);
  }
}

/** Starts what the job asks for; runs user code. */
function start(kind, payload, where) {
  if (app === undefined) throw new Refusal('unacceptable', 'an invocation came before the runtime was given its identity');
  if (kind === 'evaluate') return evaluate(payload, where);
  if (kind === 'describe') {
    if (app === null) throw new Refusal('no_such_handler', 'this runtime holds no app to describe');
    return describeApp(app);
  }
  return callHandler(findHandler(app, kind, payload));
}

/** The handler is through with `value`; expressions are JSON text already. */
function finish(invocation, kind, value, where) {
  try {
    invocations.succeed(invocation, kind === 'evaluate' ? value : toJson(value, 'the result'));
  } catch (error) {
    invocations.fail(invocation, error, 'threw', where.key);
  }
}

function payloadOf(bytes) {
  let payload;
  try {
    payload = JSONParse(Utf8Slice(bytes, 0, bytes.length));
  } catch (error) {
    throw new Refusal('unacceptable', `the job's payload is not JSON: ${messageOf(error)}`);
  }
  if (payload === null || typeof payload !== 'object') throw new Refusal('unacceptable', 'the job\'s payload is no JSON object');
  return payload;
}

/** Awaits a value of the app's. A native promise is awaited without looking at its `then`. */
async function waitFor(value) {
  return await value;
}

function isThenable(value) {
  return value !== null && (typeof value === 'object' || typeof value === 'function') && typeof value.then === 'function';
}
