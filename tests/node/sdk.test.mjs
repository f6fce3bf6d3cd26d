// Each function of `@slflows/sdk/v1`: its method, its arguments, its answer.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { appOf, withApp } from './support/worker.mjs';

/** Source of a call, method and arguments it becomes. */
const CALLS = [
  ['events.emit({ a: 1 })', 'events.emit', [{ a: 1 }]],
  ['events.emit("text", undefined)', 'events.emit', ['text']],
  ['events.emit(undefined, { outputKey: "o" })', 'events.emit', [null, { outputKey: 'o' }]],
  ['events.emit({}, { outputKey: "o", parentEventId: "p", secondaryParentEventIds: ["q"], echo: true, complete: "c" })', 'events.emit',
    [{}, { outputKey: 'o', parentEventId: 'p', secondaryParentEventIds: ['q'], echo: true, complete: 'c' }]],
  ['events.createPending({ event: { a: undefined, b: 1 }, statusDescription: "s" })', 'events.createPending', [{ event: { b: 1 }, statusDescription: 's' }]],
  ['events.updatePending("id", { statusDescription: "s" })', 'events.updatePending', ['id', { statusDescription: 's' }]],
  ['events.completePending("id")', 'events.completePending', ['id']],
  ['events.cancelPending("id", "why")', 'events.cancelPending', ['id', 'why']],
  ['events.cancelPending("id")', 'events.cancelPending', ['id']],
  ['kv.app.get("k")', 'kv.app.get', ['k']],
  ['kv.block.get("k")', 'kv.block.get', ['k']],
  ['kv.app.getMany(["a", "b"])', 'kv.app.getMany', [['a', 'b']]],
  ['kv.block.getMany(["a"])', 'kv.block.getMany', [['a']]],
  ['kv.app.set({ key: "k", value: { n: null }, ttl: 0 })', 'kv.app.set', [{ key: 'k', value: { n: null }, ttl: 0 }]],
  ['kv.block.set({ key: "k", lock: { id: "l", timeout: 3 } })', 'kv.block.set', [{ key: 'k', lock: { id: 'l', timeout: 3 } }]],
  ['kv.app.setMany([{ key: "k" }])', 'kv.app.setMany', [[{ key: 'k' }]]],
  ['kv.block.setMany([])', 'kv.block.setMany', [[]]],
  ['kv.app.list({ keyPrefix: "", startingKey: "k" })', 'kv.app.list', [{ keyPrefix: '', startingKey: 'k' }]],
  ['kv.block.list({ keyPrefix: "p" })', 'kv.block.list', [{ keyPrefix: 'p' }]],
  ['kv.app.delete(["k"])', 'kv.app.delete', [['k']]],
  ['kv.block.delete(["k"])', 'kv.block.delete', [['k']]],
  ['kv.app.releaseLock({ key: "k", lockId: "l" })', 'kv.app.releaseLock', [{ key: 'k', lockId: 'l' }]],
  ['kv.block.releaseLock({ key: "k", lockId: "l" })', 'kv.block.releaseLock', [{ key: 'k', lockId: 'l' }]],
  ['timers.set(60, { inputPayload: "p", description: "d", pendingEventId: "e" })', 'timers.set', [60, { inputPayload: 'p', description: 'd', pendingEventId: 'e' }]],
  ['timers.set(1)', 'timers.set', [1]],
  ['timers.unset("t")', 'timers.unset', ['t']],
  ['timers.block.set(1, { description: "d" })', 'timers.set', [1, { description: 'd', scope: 'block' }]],
  ['timers.block.unset("t")', 'timers.unset', ['t', { scope: 'block' }]],
  ['timers.app.set(1)', 'timers.set', [1, { scope: 'app' }]],
  ['timers.app.unset("t")', 'timers.unset', ['t', { scope: 'app' }]],
  ['messaging.sendToBlocks({ blockIds: [], body: 1 })', 'messaging.sendToBlocks', [{ blockIds: [], body: 1 }]],
  ['messaging.sendToApp({ body: { a: 1 } })', 'messaging.sendToApp', [{ body: { a: 1 } }]],
  ['lifecycle.sync()', 'lifecycle.sync', []],
  ['lifecycle.proceed()', 'lifecycle.proceed', []],
  ['lifecycle.prompt.create("k", "md", { redirect: { url: "u", method: "POST", formFields: { a: "b" } } })', 'lifecycle.prompt.create',
    ['k', 'md', { redirect: { url: 'u', method: 'POST', formFields: { a: 'b' } } }]],
  ['lifecycle.prompt.create("md", { redirect: { url: "u", method: "GET" } })', 'lifecycle.prompt.create', ['md', { redirect: { url: 'u', method: 'GET' } }]],
  ['lifecycle.prompt.delete("k")', 'lifecycle.prompt.delete', ['k']],
  ['blocks.list({ typeIds: ["one"] })', 'blocks.list', [{ typeIds: ['one'] }]],
  ['http.respond("r", { statusCode: 201, headers: { "X-A": "b" }, body: "text" })', 'http.respond', ['r', { statusCode: 201, headers: { 'X-A': 'b' }, body: 'text' }]],
  ['http.respond("r", { body: { a: 1 } })', 'http.respond', ['r', { body: { a: 1 } }]],
  ['http.respond("r", { body: new Uint8Array([0, 255]) })', 'http.respond', ['r', { body: { $bytes: 'AP8=' } }]],
  ['http.respond("r", { body: Buffer.from("zip").buffer.slice(0, 0) })', 'http.respond', ['r', { body: { $bytes: '' } }]],
  ['http.respond("r")', 'http.respond', ['r', {}]],
  ['ui.widget.set({ elements: [{ type: "text", value: "v", attributes: {} }] })', 'ui.widget.set', [{ elements: [{ type: 'text', value: 'v', attributes: {} }] }]],
];

const byNumber = appOf(`async ({ event }) => (await calls[event.inputConfig.n]()) ?? 'nothing'`, `const calls = [${CALLS.map(([source]) => `() => ${source}`).join(',\n')}];`);

test('every SDK function passes its arguments on', async () => {
  await withApp(byNumber, async (runtime) => {
    for (const [n, [source, method, args]] of CALLS.entries()) {
      const { calls, failure } = await runtime.event('one', { n });
      assert.equal(failure, undefined, `${source}: ${failure?.message}`);
      assert.deepEqual(calls.map((call) => ({ method: call.method, args: call.args })), [{ method, args }], source);
    }
  });
});

test('answers come back as they were given, and null as nothing', async () => {
  const answers = new Map([['kv.app.set', false], ['events.createPending', 'pending-1'], ['kv.app.get', { key: 'k', value: [1], ttl: 2 }]]);
  await withApp(byNumber, async (runtime) => {
    const resultOf = async (source) => (await runtime.event('one', { n: CALLS.findIndex((call) => call[0].startsWith(source)) })).result;
    assert.equal(await resultOf('kv.app.set('), false);
    assert.equal(await resultOf('events.createPending('), 'pending-1');
    assert.deepEqual(await resultOf('kv.app.get('), { key: 'k', value: [1], ttl: 2 });
    assert.equal(await resultOf('events.emit('), 'nothing');
    assert.deepEqual(await resultOf('kv.block.get('), { key: 'k' });
    assert.deepEqual(await resultOf('kv.app.getMany('), [{ key: 'a' }, { key: 'b' }]);
    assert.deepEqual(await resultOf('kv.block.list('), { pairs: [] });
  }, { answer: (method) => answers.get(method) ?? null });
});

test('a refused call rejects with the gateway\'s sentence', () =>
  withApp(appOf('async () => { try { await kv.block.set({}) } catch (error) { return [error instanceof Error, error.message] } }'), async (runtime) => {
    assert.deepEqual((await runtime.event('one')).result, [true, 'a key is missing']);
  }, { answer: () => new Error('a key is missing') }));

test('arguments that JSON cannot carry, or too large, reject and are not sent', () =>
  withApp(appOf(`async () => {
    const cycle = {}; cycle.cycle = cycle;
    const sentences = [];
    for (const body of [1n, cycle, 'x'.repeat(5e6)]) await events.emit(body).catch((error) => sentences.push(error.message));
    return sentences;
  }`), async (runtime) => {
    const { result, calls } = await runtime.event('one');
    assert.match(result[0], /events\.emit was given something that JSON cannot carry: .*BigInt/);
    assert.match(result[1], /circular/);
    assert.match(result[2], /5000004 bytes of JSON, over the limit of 4194304/);
    assert.equal(calls.length, 0);
  }));

test('unanswered calls may hold 64 MiB together, not more', () =>
  withApp(appOf(`async () => {
    const body = 'x'.repeat(4e6);
    const all = await Promise.allSettled(Array.from({ length: 20 }, () => events.emit(body)));
    await events.emit('afterwards');
    return all.map((one) => one.reason?.message).filter(Boolean);
  }`), async (runtime) => {
    const { result, calls } = await runtime.event('one');
    assert.equal(calls.length, 17);
    assert.equal(result.length, 4);
    assert.match(result[0], /more than 67108864 bytes .* await some of them first/);
  }));

test('the SDK cannot be changed by an app', () =>
  withApp(appOf(`() => [events, kv, kv.app, kv.block, http, timers, timers.block, timers.app, messaging, lifecycle, lifecycle.prompt, blocks, ui, ui.widget].every(Object.isFrozen)`), async (runtime) => {
    assert.equal((await runtime.event('one')).result, true);
  }));
