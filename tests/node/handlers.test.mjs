// Every kind of job finds its handler, with the input that apps expect.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { appOf, withApp } from './support/worker.mjs';

const everything = `
const say = (name) => function (input) { return { name, self: this.tag, input }; };
const part = (tag) => ({
  tag, onSync: say(tag + ' sync'), onDrain: say(tag + ' drain'), onTimer: say(tag + ' timer'), onInternalMessage: say(tag + ' message'),
  http: { tag: tag + ' http', onRequest: say(tag + ' request') },
  schedules: { daily: { tag: 'daily', definition: {}, onTrigger: say(tag + ' trigger') } },
  config: { region: { name: 'Region', type: 'string', default: 'eu', tag: 'region', suggestValues: say(tag + ' suggest') }, list: { name: 'L', type: 'any', default: { deep: [1] } } },
});
export const app = {
  ...part('app'),
  blocks: {
    one: {
      ...part('one'),
      inputs: { default: { tag: 'default', config: { size: { name: 'Size', type: 'number', default: 3, tag: 'size', suggestValues: say('input suggest') }, kept: { name: 'K', type: 'any', default: 1 } }, onEvent: say('event') } },
    },
    bare: { name: 'Bare', inputs: { quiet: {} } },
  },
};`;

test('each kind of job reaches its handler, of the app and of a block, as a method of its owner', () =>
  withApp(everything, async (runtime) => {
    const cases = [
      ['sync', {}, 'app sync', 'app'], ['sync', { block: 'one' }, 'one sync', 'one'],
      ['drain', {}, 'app drain', 'app'], ['drain', { block: 'one' }, 'one drain', 'one'],
      ['timer', {}, 'app timer', 'app'], ['timer', { block: 'one' }, 'one timer', 'one'],
      ['message', {}, 'app message', 'app'], ['message', { block: 'one' }, 'one message', 'one'],
      ['http', {}, 'app request', 'app http'], ['http', { block: 'one' }, 'one request', 'one http'],
      ['schedule', { schedule: 'daily' }, 'app trigger', 'daily'], ['schedule', { block: 'one', schedule: 'daily' }, 'one trigger', 'daily'],
      ['suggest', { field: 'region' }, 'app suggest', 'region'], ['suggest', { block: 'one', field: 'region' }, 'one suggest', 'region'],
      ['suggest', { block: 'one', input: 'default', field: 'size' }, 'input suggest', 'size'],
      ['event', { block: 'one', input: 'default' }, 'event', 'default'],
    ];
    for (const [kind, handler, name, self] of cases) {
      const { result, failure } = await runtime.invoke(kind, { handler, input: { timer: { payload: 'p' } } });
      assert.equal(failure, undefined, `${kind} ${JSON.stringify(handler)}: ${failure?.message}`);
      assert.equal(result.name, name);
      assert.equal(result.self, self);
      assert.deepEqual(result.input.timer, { payload: 'p' });
    }
  }));

test('defaults fill what has no value, and what apps use unguarded is there', () =>
  withApp(everything, async (runtime) => {
    const { result } = await runtime.invoke('event', {
      handler: { block: 'one', input: 'default' },
      input: { app: { config: { region: null } }, block: { id: 'b', name: 'B' }, event: { id: 'e', inputConfig: { kept: 0 }, echo: { body: 1 } } },
    });
    assert.deepEqual(result.input, {
      app: { config: { region: null, list: { deep: [1] } }, signals: {}, prompts: {}, http: { url: '' }, installationUrl: '' },
      block: { id: 'b', name: 'B', config: { region: 'eu', list: { deep: [1] } } },
      event: { id: 'e', inputConfig: { size: 3, kept: 0 }, echo: { body: 1 } },
    });
  }));

test('a default that a handler changes is new for the next', () =>
  withApp(`export const app = { config: { list: { type: 'any', default: [] } }, blocks: {}, onSync({ app }) { app.config.list.push(1); return app.config.list; } };`, async (runtime) => {
    assert.deepEqual((await runtime.invoke('sync', {})).result, [1]);
    assert.deepEqual((await runtime.invoke('sync', {})).result, [1]);
  }));

test('a handler that is not there is named with what is', () =>
  withApp(everything, async (runtime) => {
    const cases = [
      ['event', { block: 'nobody', input: 'default' }, /no block `nobody`; there are: one, bare/],
      ['event', { block: 'constructor', input: 'default' }, /no block `constructor`/],
      ['event', { block: 'one', input: 'other' }, /block `one` has no input `other`; there are: default/],
      ['event', { block: 'bare', input: 'quiet' }, /input `quiet` of block `bare` has no onEvent; handlers there are: none/],
      ['sync', { block: 'bare' }, /block `bare` has no onSync; handlers there are: none/],
      ['schedule', { block: 'one', schedule: 'weekly' }, /no schedule `weekly`; there are: daily/],
      ['suggest', { block: 'one', field: 'nothing' }, /no configuration field `nothing`; there are: region, list/],
      ['http', { block: 'bare' }, /the HTTP endpoint of block `bare` has no onRequest/],
    ];
    for (const [kind, handler, message] of cases) {
      const { failure } = await runtime.invoke(kind, { handler, input: {} });
      assert.equal(failure?.cause, 'no_such_handler', `${kind} ${JSON.stringify(handler)}`);
      assert.match(failure.message, message);
    }
    const { failure } = await runtime.invoke('event', { handler: { block: 'one', input: 'x' } });
    assert.equal(failure.cause, 'no_such_handler');
  }));

test('what a handler returns is the result; nothing is null', () =>
  withApp(appOf(`({ event: { inputConfig } }) => [async () => {}, () => 5, () => ({ then(done) { done('thenable'); } }), () => new Map(), () => ({ a: undefined, f() {} })][inputConfig.n]()`), async (runtime) => {
    const results = [];
    for (const n of [0, 1, 2, 3, 4]) results.push((await runtime.event('one', { n })).result);
    assert.deepEqual(results, [null, 5, 'thenable', {}, {}]);
  }));

test('a handler that throws fails with its own words and frames', () =>
  withApp(appOf(`async function handler({ event }) {
    if (event.inputConfig.how === 'error') throw new TypeError('bad input');
    if (event.inputConfig.how === 'text') throw 'only text';
    if (event.inputConfig.how === 'hostile') throw Object.defineProperty(new Error('x'), 'message', { get() { throw 1; } });
    if (event.inputConfig.how === 'long') throw new Error('é'.repeat(100000));
  }`), async (runtime) => {
    const fail = async (how) => (await runtime.event('one', { how })).failure;
    const error = await fail('error');
    assert.equal(error.cause, 'threw');
    assert.equal(error.message, 'TypeError: bad input');
    assert.match(error.stack, /at Object\.handler .*app\.mjs:5:/);
    assert.doesNotMatch(error.stack, /harness\.mjs|handlers\.mjs|node:/);
    assert.match((await fail('text')).message, /only text/);
    assert.match((await fail('hostile')).message, /cannot be described/);
    const { message, stack } = await fail('long');
    assert.ok(Buffer.byteLength(message) <= 16 * 1024 && message.endsWith('[cut]') && !message.includes('\ufffd'));
    assert.ok(Buffer.byteLength(stack) <= 16 * 1024);
  }));

test('module state survives between invocations', () =>
  withApp(appOf('() => ++count', 'let count = 0;'), async (runtime) => {
    await runtime.event('one');
    assert.equal((await runtime.event('one')).result, 2);
  }));
