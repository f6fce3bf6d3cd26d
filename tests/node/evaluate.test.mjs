// Expressions: their scope, their results, and what is said of those that fail.

import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { test } from 'node:test';

import { withApp, withFlow } from './support/worker.mjs';

test('expressions see their scope and are evaluated in order', () =>
  withFlow(async (runtime) => {
    const { result } = await runtime.evaluate(
      {
        sum: '1 + 2', text: '`Hello ${outputs.user.name}`', object: '{ a: [signals.block.ready, secrets.KEY] }',
        ref: '[ref("signal.block.ready"), ref("secret.KEY"), ref("output.user.name")]',
        later: 'Promise.resolve(7)', awaited: 'await Promise.resolve(8) + 1', statements: '(() => { const a = 2; return a * a })()',
        more: 'event.id', nothing: 'undefined', comment: '3 // three', date: 'new Date(0)',
      },
      { outputs: { user: { name: 'Ada' } }, signals: { block: { ready: true } }, secrets: { KEY: 'k' }, event: { id: 'e1' } },
    );
    assert.deepEqual(result, {
      sum: 3, text: 'Hello Ada', object: { a: [true, 'k'] }, ref: [true, 'k', 'Ada'], later: 7, awaited: 9, statements: 4,
      more: 'e1', nothing: null, comment: 3, date: '1970-01-01T00:00:00.000Z',
    });
    assert.deepEqual(Object.keys(result).slice(0, 2), ['sum', 'text']);
  }));

test('the first expression that fails is named and fails the job', () =>
  withFlow(async (runtime) => {
    const cases = [
      [{ good: '1', bad: '1 +' }, 'syntax', /`bad` does not parse: SyntaxError: Unexpected end of input \(line 1\)/],
      [{ bad: '1,\n2,\n}' }, 'syntax', /\(line 3\)/],
      [{ bad: '1); console.log(2' }, 'syntax', /does not parse/],
      [{ bad: '1]; [2' }, 'syntax', /does not parse/],
      [{ bad: 'outputs.nobody.name' }, 'threw', /Cannot read properties of undefined \(reading 'name'\)/],
      [{ bad: 'nobody.name' }, 'threw', /ReferenceError: nobody is not defined/],
      [{ bad: 'leak = 1' }, 'threw', /leak is not defined/],
      [{ bad: 'Promise.reject(new RangeError("far"))' }, 'threw', /^RangeError: far$/],
      [{ bad: '(() => { throw { code: 7 } })()' }, 'threw', /no Error was thrown: \{ code: 7 \}/],
      [{ bad: 'ref("signal.nobody.x")' }, 'threw', /`signal` has no `nobody`; there are: block/],
      [{ good: '1', bad: '1n' }, 'result_not_json', /the value of `bad` is something JSON cannot carry: TypeError: Do not know how to serialize a BigInt/],
      [{ bad: '(() => { const a = {}; a.a = a; return a })()' }, 'result_not_json', /circular/],
      [{ bad: '() => 1' }, 'result_not_json', /is a function/],
      [{ bad: 'Symbol("s")' }, 'result_not_json', /is a symbol/],
      [{ bad: '"x".repeat(5e6)' }, 'result_too_large', /4194304/],
      [{ bad: '"ä".repeat(3e6)' }, 'result_too_large', /4194304/],
    ];
    for (const [expressions, cause, message] of cases) {
      const { failure } = await runtime.evaluate(expressions, { signals: { block: {} } });
      assert.equal(failure?.cause, cause, JSON.stringify(expressions).slice(0, 99));
      assert.match(failure.message, message);
      if (cause !== 'result_too_large') assert.equal(failure.key, 'bad');
    }
    assert.equal((await runtime.evaluate('40 + 2')).result.value, 42);
  }));

test('a stack counts the lines of the expression and shows no others', () =>
  withFlow(async (runtime) => {
    const { failure } = await runtime.evaluate('(() => {\n  const inner = () => { throw new Error("deep") };\n  return inner();\n})()');
    assert.equal(failure.message, 'deep');
    assert.match(failure.stack, /at inner \(expression:2:/);
    assert.match(failure.stack, /expression:3:/);
    assert.doesNotMatch(failure.stack, /\.mjs|node:/);
    const later = await runtime.evaluate('await (async () => { await null; throw new Error("later") })()');
    assert.match(later.failure.stack, /expression:1:/);
  }));

test('encrypt and decrypt are AES-256-GCM as Web Crypto writes it', () =>
  withFlow(async (runtime) => {
    const key = randomBytes(32);
    const scope = { signals: { vault: { key: key.toString('base64') } } };
    const { result } = await runtime.evaluate(
      { sealed: 'encrypt(ref("signal.vault.key"), "grüße")', again: 'encrypt(signals.vault.key, "grüße")', opened: 'decrypt(signals.vault.key, encrypt(signals.vault.key, "grüße"))' },
      scope,
    );
    assert.equal(result.opened, 'grüße');
    assert.notEqual(result.sealed, result.again);
    const bytes = Buffer.from(result.sealed, 'base64');
    const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, 12));
    decipher.setAuthTag(bytes.subarray(-16));
    assert.equal(decipher.update(bytes.subarray(12, -16)).toString() + decipher.final(), 'grüße');
    const cipher = createCipheriv('aes-256-gcm', key, bytes.subarray(0, 12));
    const foreign = Buffer.concat([bytes.subarray(0, 12), cipher.update('from outside'), cipher.final(), cipher.getAuthTag()]);
    const opened = await runtime.evaluate(`decrypt(signals.vault.key, "${foreign.toString('base64')}")`, scope);
    assert.equal(opened.result.value, 'from outside');
    const other = await runtime.evaluate(`decrypt("${randomBytes(32).toString('base64')}", "${result.sealed}")`);
    assert.match(other.failure.message, /the key is another one/);
    assert.match((await runtime.evaluate('encrypt("short", "x")')).failure.message, /base64 of 32 bytes/);
    assert.match((await runtime.evaluate(`encrypt("${key.toString('base64')}", {})`)).failure.message, /takes text/);
  }));

test('console output of an expression is the job\'s log', () =>
  withFlow(async (runtime) => {
    const job = await runtime.evaluate('(() => { console.log("seen", { a: 1 }); return 1 })()');
    assert.deepEqual(job.logs, [{ level: 'info', text: 'seen { a: 1 }' }]);
    assert.deepEqual(job.order, ['log', 'done']);
  }));

test('two expressions of one flow wait at the same time', () =>
  withFlow(async (runtime) => {
    const waiting = runtime.begin('evaluate', { expressions: { value: 'new Promise((done) => { globalThis.open = done })' } });
    await runtime.evaluate('open("by the other")');
    assert.deepEqual((await waiting.ended).result, { value: 'by the other' });
  }));

test('thousands of different expressions do not pile up', () =>
  withFlow(async (runtime) => {
    const expressions = Object.fromEntries(Array.from({ length: 6000 }, (_, n) => [`k${n}`, `${n} + 1`]));
    const { result } = await runtime.evaluate(expressions);
    assert.equal(result.k5999, 6000);
    assert.equal((await runtime.evaluate('0 + 1')).result.value, 1);
  }));

test('a payload that is no job of its kind is unacceptable', () =>
  withFlow(async (runtime) => {
    assert.equal((await runtime.invoke('evaluate', '{"expressions":')).failure.cause, 'unacceptable');
    assert.equal((await runtime.invoke('evaluate', '7')).failure.cause, 'unacceptable');
    assert.equal((await runtime.evaluate({ bad: 7 })).failure.cause, 'unacceptable');
    assert.equal((await runtime.invoke('sync', { handler: {} })).failure.cause, 'no_such_handler');
    assert.equal((await runtime.invoke('describe', {})).failure.cause, 'no_such_handler');
  }));

test('SDK calls are refused while expressions are evaluated', () =>
  withApp('import * as sdk from "@slflows/sdk/v1"; globalThis.sdk = sdk; export const app = { blocks: {} };', async (runtime) => {
    const { failure, calls } = await runtime.evaluate('sdk.events.emit({})');
    assert.match(failure.message, /events\.emit cannot be called while a runtime does evaluate/);
    assert.equal(calls.length, 0);
  }));
