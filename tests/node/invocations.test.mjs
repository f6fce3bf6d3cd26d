// Many invocations in one process: whose is what, and when each ends.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { appOf, eventPayload, withApp } from './support/worker.mjs';

test('an open invocation does not block a second one, and calls and logs keep their owner', () =>
  withApp(appOf(`async ({ event: { inputConfig: { name, wait } } }) => {
    console.log(name, 'begins');
    if (wait) await new Promise((done) => { open = done; }); else open();
    await new Promise((done) => setTimeout(done, 5));
    console.log(name, 'goes on');
    await Promise.all([events.emit({ name, n: 1 }), kv.app.get(name)]);
    return name;
  }`, 'let open;'), async (runtime) => {
    const first = runtime.begin('event', eventPayload('one', { name: 'first', wait: true }));
    const second = await runtime.event('one', { name: 'second' });
    const end = await first.ended;
    for (const [name, one] of [['first', { ...first, ...end }], ['second', second]]) {
      assert.equal(one.result, name);
      assert.deepEqual(one.logs.map((line) => line.text), [`${name} begins`, `${name} goes on`]);
      assert.deepEqual(one.calls.map((call) => call.args), [[{ name, n: 1 }], [name]]);
    }
  }));

test('a hundred invocations at once each get their own answers', () =>
  withApp(appOf('async ({ event }) => { const pairs = await Promise.all([1, 2, 3].map((n) => kv.app.get(event.inputConfig.n + "-" + n))); return pairs.map((pair) => pair.value); }'), async (runtime) => {
    const all = await Promise.all(Array.from({ length: 100 }, (_, n) => runtime.event('one', { n })));
    all.forEach((one, n) => assert.deepEqual(one.result, [`${n}-1!`, `${n}-2!`, `${n}-3!`]));
  }, { answer: async (method, [key]) => { await new Promise((done) => setTimeout(done, Math.random() * 10)); return { key, value: `${key}!` }; } }));

test('calls that nobody awaits are answered before the end, also after a throw', () =>
  withApp(appOf(`async ({ event: { inputConfig: { fails } } }) => {
    events.cancelPending('p', 'why');
    Promise.resolve().then(() => lifecycle.sync());
    if (fails) throw new Error('after the call');
  }`), async (runtime) => {
    for (const fails of [false, true]) {
      const answered = [];
      runtime.answer = async (method) => { await new Promise((done) => setTimeout(done, 20)); answered.push(method); return null; };
      const { order, failure } = await runtime.event('one', { fails });
      assert.deepEqual(answered, ['events.cancelPending', 'lifecycle.sync']);
      assert.deepEqual(order, ['call', 'call', fails ? 'failed' : 'done']);
      assert.equal(failure?.message, fails ? 'after the call' : undefined);
    }
  }));

test('a call that follows the answer of one nobody awaits is still made', () =>
  withApp(appOf(`() => { (async () => { await kv.app.get('a'); await kv.app.get('b'); })(); return 'soon'; }`), async (runtime) => {
    const { calls, result } = await runtime.event('one');
    assert.deepEqual(calls.map((call) => call.args[0]), ['a', 'b']);
    assert.equal(result, 'soon');
  }));

test('a call after the end is refused, logged and not sent', () =>
  withApp(appOf(`() => { setTimeout(() => events.emit('late').catch((error) => { globalThis.late = error.message; }), 10); }`), async (runtime) => {
    assert.equal((await runtime.event('one')).result, null);
    await runtime.complaint(/warn: events\.emit was called after its invocation had ended/);
    assert.match((await runtime.evaluate('late')).result.value, /after its invocation had ended/);
  }));

test('a call outside of any invocation is refused', () =>
  withApp(`import { events } from '@slflows/sdk/v1'; const early = events.emit(1).catch((error) => error.message); export const app = { blocks: {}, onSync: () => early };`, async (runtime) => {
    assert.match((await runtime.invoke('sync', {})).result, /outside of an invocation/);
  }));

test('a thousand calls may be unanswered, not one more', () =>
  withApp(appOf(`async () => {
    const all = await Promise.allSettled(Array.from({ length: 1002 }, (_, n) => kv.app.get(String(n))));
    await kv.app.get('afterwards');
    return [all.filter((one) => one.status === 'fulfilled').length, all[1000].reason.message];
  }`), async (runtime) => {
    const held = [];
    runtime.answer = (method, args, invocation) => {
      if (args[0] === 'afterwards') return null;
      if (held.push([invocation.number, invocation.calls.length]) === 1000) held.forEach(([number, call]) => runtime.reply(number, call, null));
      return undefined;
    };
    const { result, calls } = await runtime.event('one');
    assert.equal(result[0], 1000);
    assert.match(result[1], /1000 calls of this invocation are unanswered/);
    assert.equal(calls.length, 1001);
  }));

test('abort ends an invocation at once, rejects its calls, and touches no other', () =>
  withApp(appOf(`async ({ event: { inputConfig: { name } } }) => {
    try { await kv.app.get(name); } catch (error) { globalThis.told = error.message; console.log('too late'); await events.emit('too late').catch(() => {}); }
    return name;
  }`), async (runtime) => {
    runtime.answer = () => undefined;
    const aborted = runtime.begin('event', eventPayload('one', { name: 'aborted' }));
    const other = runtime.begin('event', eventPayload('one', { name: 'other' }));
    await runtime.message('call');
    if (other.calls.length === 0) await runtime.message('call');
    runtime.send({ abort: { invocation: aborted.number } });
    assert.match((await aborted.ended).failure.message, /aborted/);
    assert.equal((await runtime.evaluate('told')).result.value, 'the invocation was aborted');
    runtime.send({ abort: { invocation: aborted.number } });
    runtime.reply(aborted.number, 1, null);
    runtime.reply(other.number, 1, null);
    assert.equal((await other.ended).result, 'other');
    assert.deepEqual(aborted.order, ['call', 'failed']);
  }));

test('abort ends a handler that waits for nothing of ours', () =>
  withApp(appOf('() => new Promise(() => {})'), async (runtime) => {
    const one = runtime.begin('event', eventPayload('one', {}));
    runtime.send({ abort: { invocation: one.number } });
    assert.match((await one.ended).failure.message, /aborted/);
  }));

test('an error that nobody catches fails the invocation it belongs to and no other', () =>
  withApp(appOf(`async ({ event: { inputConfig: { how } } }) => {
    if (how === 'rejection') Promise.reject(new Error('unhandled'));
    if (how === 'timer') setTimeout(() => { throw new TypeError('in a timer'); }, 5);
    if (how === 'emitter') setImmediate(() => new EventEmitter().emit('error', new Error('in an emitter')));
    if (how === 'refused') events.emit('not awaited');
    await new Promise((done) => setTimeout(done, how === 'refused' ? 0 : 50));
    return how;
  }`, 'import { EventEmitter } from "node:events";'), async (runtime) => {
    runtime.answer = () => new Error('refused by the gateway');
    const cases = [['rejection', 'unhandled'], ['timer', 'TypeError: in a timer'], ['emitter', 'in an emitter'], ['refused', 'refused by the gateway'], ['nothing', undefined]];
    const all = await Promise.all(cases.map(([how]) => runtime.event('one', { how })));
    cases.forEach(([how, message], n) => {
      assert.equal(all[n].failure?.message, message, how);
      assert.equal(all[n].failure?.cause, message && 'threw');
    });
    assert.equal((await runtime.event('one', { how: 'again' })).result, 'again');
  }));

test('an error after the end is logged and ends nothing', () =>
  withApp(appOf('() => { setTimeout(() => { throw new Error("afterwards"); }, 5); return 1; }'), async (runtime) => {
    assert.equal((await runtime.event('one')).result, 1);
    await runtime.complaint(/error: an error that nobody caught.*afterwards/);
    assert.equal((await runtime.event('one')).result, 1);
  }));
