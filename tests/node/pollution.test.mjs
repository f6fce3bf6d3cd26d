// What an app does to JavaScript does not reach the harness.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { appOf, withApp, withFlow } from './support/worker.mjs';

/**
 * Replaces what the harness could be tempted to use by something that throws.
 * Not Array.prototype.pop and Function.prototype.apply, which Node itself calls.
 */
const pollute = `
const fail = () => { throw new Error('polluted'); };
const all = [
  [Array.prototype, ['push', 'shift', 'splice', 'slice', 'map', 'filter', 'forEach', 'join', 'concat', 'indexOf', 'includes', 'sort', 'fill', Symbol.iterator]],
  [Map.prototype, ['get', 'set', 'has', 'delete', 'forEach', 'keys', 'entries', 'values', Symbol.iterator]],
  [Set.prototype, ['has', 'add']], [WeakMap.prototype, ['get', 'set', 'has']],
  [String.prototype, ['split', 'slice', 'indexOf', 'includes', 'startsWith', 'replace', 'charCodeAt', 'trim']],
  [RegExp.prototype, ['exec', 'test']], [Function.prototype, ['call', 'bind']],
  [Promise.prototype, ['catch', 'finally']], [Promise, ['resolve', 'all']],
  [Buffer, ['from', 'alloc', 'allocUnsafe', 'concat', 'byteLength']],
  [Buffer.prototype, ['utf8Slice', 'utf8Write', 'toString', 'write', 'copy', 'subarray', 'slice']],
  [Object.getPrototypeOf(Uint8Array.prototype), ['set', 'subarray', 'slice', Symbol.iterator]],
  [JSON, ['parse', 'stringify']], [Object, ['keys', 'hasOwn', 'defineProperty', 'freeze', 'assign', 'entries']], [Reflect, ['apply', 'ownKeys']],
  [EventEmitter.prototype, ['emit', 'on']], [Socket.prototype, ['write', '_write', '_writeGeneric', '_writev']], [Writable.prototype, ['write', '_write', 'cork']], [Readable.prototype, ['push', 'read']],
  [AsyncLocalStorage.prototype, ['getStore', 'run', 'enterWith']], [AsyncResource.prototype, ['runInAsyncScope']],
];
for (let a = 0; a < all.length; a++) for (let b = 0; b < all[a][1].length; b++) all[a][0][all[a][1][b]] = fail;
Object.prototype.then = undefined; Object.prototype.failure = { cause: 'threw', message: 'forged' }; Object.prototype.key = 'forged';
Object.prototype.toJSON = undefined; Object.prototype.value = undefined; Object.prototype.get = undefined;
globalThis.JSON = undefined; globalThis.Map = undefined; globalThis.Buffer = undefined; globalThis.Uint8Array = undefined; globalThis.Promise = undefined;
process.nextTick = fail; globalThis.setImmediate = fail; globalThis.queueMicrotask = fail;
`;
const imports = `
import { EventEmitter } from 'node:events'; import { Socket } from 'node:net'; import { Readable, Writable } from 'node:stream';
import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';`;

test('replaced built-ins neither break nor forge the invocations that follow', () =>
  withApp(appOf(`async ({ event: { inputConfig: { step } } }) => {
    if (step === 'pollute') { ${pollute} return 'done it'; }
    if (step === 'throw') throw new Error('mine');
    console.log('a line');
    const pair = await kv.app.get('k');
    await events.emit({ pair });
    return { step, pair };
  }`, imports), async (runtime) => {
    runtime.answer = (method, [key]) => (method === 'kv.app.get' ? { key, value: 7 } : null);
    const polluted = await runtime.event('one', { step: 'pollute' });
    assert.equal(polluted.result, 'done it', polluted.failure?.message);
    const all = await Promise.all([1, 2, 3].map((step) => runtime.event('one', { step })));
    all.forEach(({ result, failure, calls, logs }, n) => {
      assert.equal(failure, undefined, failure?.message);
      assert.deepEqual(result, { step: n + 1, pair: { key: 'k', value: 7 } });
      assert.deepEqual(calls.map((call) => call.args), [['k'], [{ pair: { key: 'k', value: 7 } }]]);
      assert.deepEqual(logs, [{ level: 'info', text: 'a line' }]);
    });
    const { failure } = await runtime.event('one', { step: 'throw' });
    assert.equal(failure.message, 'mine');
    assert.equal(failure.key, undefined);
    assert.equal((await runtime.event('nobody')).failure.cause, 'no_such_handler');
  }));

test('replaced built-ins do not break expressions', () =>
  withFlow(async (runtime) => {
    const source = (text) => `(async () => { ${text} })()`;
    const prepare = `
      const [{ EventEmitter }, { Socket }, { Readable, Writable }, { AsyncLocalStorage, AsyncResource }] = await Promise.all(['events', 'net', 'stream', 'async_hooks'].map((name) => import('node:' + name)));`;
    const { result: polluted, failure: unpolluted } = await runtime.evaluate(source(prepare + pollute + 'return 1;'));
    assert.equal(polluted?.value, 1, unpolluted?.message);
    const { result, failure } = await runtime.evaluate({ a: '1 + 1', b: 'outputs.x.y', c: 'ref("signal.s.t")' }, { outputs: { x: { y: 'z' } }, signals: { s: { t: 5 } } });
    assert.equal(failure, undefined, failure?.message);
    assert.deepEqual(result, { a: 2, b: 'z', c: 5 });
    assert.equal((await runtime.evaluate('nobody')).failure.cause, 'threw');
    assert.equal((await runtime.evaluate('1 +')).failure.cause, 'syntax');
  }));

test('a `then` that never calls back stops only those who use it', () =>
  withApp(appOf('async ({ event }) => { if (event.inputConfig.evil) Promise.prototype.then = () => {}; return "ended"; }'), async (runtime) => {
    assert.equal((await runtime.event('one', { evil: true })).result, 'ended');
    assert.equal((await runtime.event('one')).result, 'ended');
  }));

test('nothing in plain sight leads to the socket, and the uncaught-error hook stays', () =>
  withApp(appOf(`async () => {
    const resource = executionAsyncResource();
    const values = Reflect.ownKeys(resource).map((key) => resource[key]);
    let hook; try { process.setUncaughtExceptionCaptureCallback(null); hook = 'taken'; } catch (error) { hook = error.message; }
    let bound; try { port.bindCalls(() => {}); bound = 'bound'; } catch (error) { bound = error.message; }
    return {
      handles: process._getActiveHandles().filter((handle) => handle !== process.stdout && handle !== process.stderr).map((handle) => handle.constructor.name), requests: process._getActiveRequests().length,
      sockets: [resource, ...values].filter((value) => /Socket|Pipe/.test(value?.constructor?.name)).length, argv: process.argv.length, hook, bound,
    };
  }`, 'import { executionAsyncResource } from "node:async_hooks"; const port = await import(new URL("../port.mjs", import.meta.url).href);'), async (runtime) => {
    const { result } = await runtime.event('one');
    assert.ok(!result.handles.includes('Socket') && !result.handles.includes('Pipe'), result.handles.join());
    assert.equal(result.requests, 0);
    assert.equal(result.sockets, 0);
    assert.equal(result.argv, 2);
    assert.match(result.hook, /uncaught exceptions are the runtime's/);
    assert.match(result.bound, /bound already/);
  }));
