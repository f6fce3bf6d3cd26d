// What a bundle may be, and what is said about one that is not.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Runtime, withApp } from './support/worker.mjs';

/** Loads code that does not load; answers the failure. */
async function refusal(code) {
  const runtime = await Runtime.start();
  try {
    const reply = await runtime.load(code);
    if (code.includes('half way')) await runtime.complaint(/half way/);
    assert.ok(reply.load_failed, 'the bundle loaded');
    return { ...reply.load_failed.failure, stderr: runtime.stderr };
  } finally {
    await runtime.stop();
  }
}

const schema = async (runtime) => (await runtime.invoke('describe', {})).result;

test('an app is the named export `app` or the default one', async () => {
  await withApp('export const app = { name: "named", blocks: {} }; export default { name: "default", blocks: {} };', async (runtime) => {
    assert.equal((await schema(runtime)).name, 'named');
  });
  await withApp('import { defineApp } from "@slflows/sdk/v1"; export default defineApp({ name: "default", blocks: {} });', async (runtime) => {
    assert.equal((await schema(runtime)).name, 'default');
  });
});

test('a bundle with the banner of flowctl loads', async () => {
  const banner = `import { createRequire } from 'node:module';
    var require = createRequire(import.meta.url);
    var __dirname = import.meta.dirname; var __filename = import.meta.filename;`;
  await withApp(`${banner}\nconst { join } = require('node:path'); export const app = { name: join(__filename.slice(-7), '.'), blocks: {} };`, async (runtime) => {
    assert.equal((await schema(runtime)).name, 'app.mjs');
  });
});

test('a syntax error names its line', async () => {
  const failure = await refusal('export const app = {\n\n  blocks: { 3 foo } };');
  assert.equal(failure.cause, 'syntax');
  assert.match(failure.message, /Unexpected identifier.*\(line 3, column 15\)/);
  const unfinished = await refusal('export const app = {');
  assert.equal(unfinished.cause, 'syntax');
  assert.match(unfinished.message, /Unexpected end of input \(line 1\)/);
});

test('an import that the SDK does not have is named', async () => {
  const failure = await refusal('import { nothing } from "@slflows/sdk/v1"; export const app = {};');
  assert.equal(failure.cause, 'syntax');
  assert.match(failure.message, /nothing/);
});

test('an import of a package that is not bundled is named', async () => {
  const failure = await refusal('import "left-out"; export const app = {};');
  assert.equal(failure.cause, 'threw');
  assert.match(failure.message, /left-out/);
});

test('a throw while loading is told with its own frames', async () => {
  const failure = await refusal('console.log("half way");\nconst fails = () => { throw new RangeError("no") };\nfails();\nexport const app = {};');
  assert.equal(failure.cause, 'threw');
  assert.equal(failure.message, 'RangeError: no');
  assert.match(failure.stack, /at fails .*app\.mjs:2:/);
  assert.doesNotMatch(failure.stack, /load\.mjs|node:internal/);
  assert.match(failure.stderr, /info: half way/);
});

test('a bundle without an app says how to export one', async () => {
  const failure = await refusal('export const other = 1;');
  assert.equal(failure.cause, 'no_such_handler');
  assert.match(failure.message, /export it as `app`/);
  assert.equal((await refusal('export const app = 7;')).cause, 'no_such_handler');
});

test('a bundle that is not there is unavailable', async () => {
  const runtime = await Runtime.start();
  runtime.send({ load: { bundle: `${runtime.dir}/run/missing.mjs` } });
  const reply = await runtime.message('load_failed');
  assert.equal(reply.load_failed.failure.cause, 'bundle_unavailable');
  await runtime.stop();
});

test('what is logged while loading stands before the first invocation\'s log', async () => {
  await withApp('console.log("loading"); console.warn("still"); export const app = { blocks: {}, onSync() { console.log("sync"); } };', async (runtime) => {
    const first = await runtime.invoke('sync', { handler: {}, input: {} });
    assert.deepEqual(first.logs.map((line) => line.text), ['loading\nstill', 'sync']);
    const second = await runtime.invoke('sync', { handler: {}, input: {} });
    assert.deepEqual(second.logs.map((line) => line.text), ['sync']);
  });
});
