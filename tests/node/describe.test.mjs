// `describe` gives the schema that published flow definitions carry.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { REPOSITORY, Runtime, withApp } from './support/worker.mjs';

const describe = async (code) => withApp(code, async (runtime) => {
  const { result, failure } = await runtime.invoke('describe', {});
  assert.equal(failure, undefined, failure?.message);
  return result;
});

const code = `
import { defineApp } from '@slflows/sdk/v1';
const shared = { type: 'string', description: 'An id.' };
export const app = defineApp({
  config: { token: { name: 'Token', type: 'string', required: true, sensitive: true, fixed: true } },
  blocks: {
    subscription: {
      name: 'Subscription', description: 'Listens.', category: 'Messaging',
      config: {
        url: { name: 'URL', description: 'Where.', type: 'string', required: true },
        allowed: { name: 'Allowed', description: 'What.', type: { type: 'array', items: { type: 'string' } } },
      },
      onInternalMessage() {},
      outputs: {
        default: { name: 'Message', description: 'A message.', default: true, type: { type: 'object', properties: { user: shared, blocks: { items: { type: 'any' }, type: 'array' }, default: { type: 'any', description: 'Odd.' } }, required: ['user'] } },
        interaction: { name: 'Interaction', possiblePrimaryParents: ['send'], type: 'any' },
      },
    },
    tool: {
      name: 'Tool', category: 'Definition', description: 'A tool.',
      config: { schema: { name: 'Schema', type: 'jsonSchemaObject', required: true, default: { type: 'any', properties: { b: 1, a: 2 } } } },
      inputs: { processResult: { name: 'Process', description: 'Results.', onEvent: async () => {}, config: { force: { name: 'Force', description: 'How.', type: { anyOf: [{ type: 'string' }, { type: 'boolean' }] }, default: false } } }, bare: {} },
      signals: { url: { name: 'URL', description: 'The URL.' }, key: { name: 'Key', sensitive: true } },
      onSync: async () => ({}), onDrain() {}, onTimer() {},
    },
  },
});`;

/** What the definitions of published apps look like, in their order of keys. */
const published = {
  subscription: '{"order":0,"name":"Subscription","category":"Messaging","description":"Listens.","config":{'
    + '"allowed":{"order":1,"name":"Allowed","description":"What.","type":{"items":{"type":"string"},"type":"array"},"fixed":false,"required":false,"hasValidator":false,"fieldKey":"","sensitive":false},'
    + '"url":{"order":0,"name":"URL","description":"Where.","type":{"type":"string"},"fixed":false,"required":true,"hasValidator":false,"fieldKey":"","sensitive":false}},'
    + '"hasOnInternalMessage":true,"inputs":{},"outputs":{'
    + '"default":{"order":0,"name":"Message","description":"A message.","default":true,"possiblePrimaryParents":[],"type":{"properties":{"blocks":{"items":{},"type":"array"},"default":{"description":"Odd."},"user":{"description":"An id.","type":"string"}},"required":["user"],"type":"object"}},'
    + '"interaction":{"order":1,"name":"Interaction","possiblePrimaryParents":["send"],"type":{}}},'
    + '"signals":{},"hasOnSync":false,"hasOnDrain":false,"hasOnTimer":false}',
  tool: '{"order":1,"name":"Tool","category":"Definition","description":"A tool.","config":{'
    + '"schema":{"order":0,"name":"Schema","description":"","type":{"type":"object"},"fixed":false,"required":true,"default":{"properties":{"a":2,"b":1},"type":"any"},"hasValidator":false,"fieldKey":"","sensitive":false}},'
    + '"hasOnInternalMessage":false,"inputs":{'
    + '"bare":{"order":1,"config":{},"hasOnEvent":false},'
    + '"processResult":{"order":0,"name":"Process","description":"Results.","config":{"force":{"order":0,"name":"Force","description":"How.","type":{"anyOf":[{"type":"string"},{"type":"boolean"}]},"fixed":false,"required":false,"default":false,"hasValidator":false,"fieldKey":"","sensitive":false}},"hasOnEvent":true}},'
    + '"outputs":{},"signals":{"key":{"order":1,"name":"Key","description":"","sensitive":true},"url":{"order":0,"name":"URL","description":"The URL.","sensitive":false}},'
    + '"hasOnSync":true,"hasOnDrain":true,"hasOnTimer":true}',
};

test('blocks are described byte for byte as published definitions have them', async () => {
  const { blocks } = await describe(code);
  assert.deepEqual(Object.keys(blocks), ['subscription', 'tool']);
  for (const [key, text] of Object.entries(published)) assert.equal(JSON.stringify(blocks[key]), text);
});

test('an app is described with what its blocks do not say', async () => {
  const { blocks, ...app } = await describe(code);
  assert.deepEqual(app, {
    autoconfirm: false,
    config: { token: { order: 0, name: 'Token', description: '', type: { type: 'string' }, fixed: true, required: true, hasValidator: false, fieldKey: '', sensitive: true } },
    signals: {}, hasOnSync: false, hasOnDrain: false, hasOnTimer: false, hasOnInternalMessage: false, hasOnRequest: false, schedules: {},
  });
});

test('newer parts of the SDK are described where an app declares them', async () => {
  const { blocks: { one } } = await describe(`export default { blocks: { one: {
    name: 'One', autoconfirm: true, entrypoint: true, http: { onRequest() {} },
    config: { pick: { name: 'Pick', type: 'string', suggestValues() {}, validator() {} } },
    outputs: { late: { secondary: true, order: 7, type: 'number' } },
    signals: { s: { sensitivity: 'hide_by_default' } },
    schedules: { poll: { description: 'Polls.', customizable: true, definition: { type: 'frequency', frequency: { interval: 5, unit: 'minutes' } }, onTrigger() {} } },
  } } };`);
  assert.equal(one.autoconfirm, true);
  assert.equal(one.entrypoint, true);
  assert.equal(one.hasOnRequest, true);
  assert.equal(one.config.pick.hasSuggestValues, true);
  assert.equal(one.config.pick.hasValidator, true);
  assert.deepEqual(one.outputs.late, { order: 7, secondary: true, possiblePrimaryParents: [], type: { type: 'number' } });
  assert.equal(one.signals.s.sensitivity, 'hide_by_default');
  assert.deepEqual(one.schedules.poll, {
    order: 0, description: 'Polls.', customizable: true, definition: { frequency: { interval: 5, unit: 'minutes' }, type: 'frequency' }, hasOnTrigger: true,
  });
});

test('nonsense in a definition is described as nothing, not as a crash', async () => {
  const { blocks, config } = await describe('export const app = { config: 7, blocks: { a: null, b: { inputs: "x", outputs: { o: null }, config: { f: { type: 3 } } } } };');
  assert.equal(blocks.a.name, '');
  assert.deepEqual(blocks.b.inputs, {});
  assert.deepEqual(blocks.b.config.f.type, {});
  assert.deepEqual(config, {});
});

test('the sample app, as bundled, loads, describes itself and greets', async () => {
  const runtime = await Runtime.app(readFileSync(join(REPOSITORY, 'target/apps/sample.mjs'), 'utf8'), { answer: (method) => (method === 'kv.block.set' ? true : null) });
  try {
    const { result } = await runtime.invoke('describe', {});
    assert.deepEqual(Object.keys(result.blocks), ['counter', 'greet', 'reminder', 'slow']);
    assert.equal(result.blocks.greet.inputs.default.hasOnEvent, true);
    assert.equal(result.autoconfirm, true);
    const greeted = await runtime.event('greet', { name: 'Ada' });
    assert.equal(greeted.result.text, 'Hello Ada!');
    assert.deepEqual(greeted.calls.map((call) => call.method), ['events.emit']);
    assert.deepEqual(greeted.logs, [{ level: 'info', text: 'greeting Ada' }]);
    const counted = await runtime.event('counter', {});
    assert.deepEqual(counted.calls.map((call) => call.method), ['kv.block.get', 'kv.block.set', 'events.emit', 'kv.block.releaseLock', 'lifecycle.sync']);
    const waited = await runtime.event('slow', { seconds: 0.01 });
    assert.deepEqual(waited.result, { seconds: 0.01 });
  } finally {
    await runtime.stop();
  }
});
