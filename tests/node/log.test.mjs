// Logs: levels, formatting, owners and limits.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { appOf, eventPayload, withApp, withFlow } from './support/worker.mjs';

const LINE_BYTES_MAX = 8 * 1024;

test('the console writes lines with levels, as Node would format them', () =>
  withApp(appOf(`() => {
    console.log('a %s of %d', 'line', 2, { deep: [1] });
    console.info('info'); console.debug('debug'); console.warn('warn'); console.error(new Error('e').message);
    console.group('outer'); console.log('inside'); console.groupEnd(); console.log('outside');
    console.count('c'); console.assert(false, 'asserted'); console.table([{ a: 1 }]); console.dir({ d: 1 });
    console.trace('here');
  }`), async (runtime) => {
    const { logs } = await runtime.event('one');
    assert.deepEqual(logs.slice(0, 10), [
      { level: 'info', text: 'a line of 2 { deep: [ 1 ] }' }, { level: 'info', text: 'info' }, { level: 'debug', text: 'debug' },
      { level: 'warn', text: 'warn' }, { level: 'error', text: 'e' }, { level: 'info', text: 'outer' }, { level: 'info', text: '  inside' },
      { level: 'info', text: 'outside' }, { level: 'info', text: 'c: 1' }, { level: 'warn', text: 'Assertion failed: asserted' },
    ]);
    assert.match(logs[10].text, /│ 0 *│ 1 *│/);
    assert.equal(logs[11].text, '{ d: 1 }');
    assert.match(logs[12].text, /^Trace: here\n +at .*app\.mjs/);
  }));

test('standard output and error are logged by whole lines', () =>
  withApp(appOf(`async () => {
    process.stdout.write('one\\ntw'); await null; process.stdout.write(Buffer.from('o\\nrest'));
    await new Promise((done) => process.stderr.write('oops\\n', done));
  }`), async (runtime) => {
    const { logs } = await runtime.event('one');
    assert.deepEqual(logs, [
      { level: 'info', text: 'one' }, { level: 'info', text: 'two' }, { level: 'error', text: 'oops' }, { level: 'info', text: 'rest' },
    ]);
  }));

test('a long line is cut, marked, and what is cut is counted', () =>
  withApp(appOf(`({ event }) => console.log('é'.repeat(event.inputConfig.n))`), async (runtime) => {
    const fits = await runtime.event('one', { n: LINE_BYTES_MAX / 2 });
    assert.equal(fits.logs[0].text.length, LINE_BYTES_MAX / 2);
    assert.equal(fits.dropped, 0);
    const { logs, dropped } = await runtime.event('one', { n: LINE_BYTES_MAX });
    const bytes = Buffer.byteLength(logs[0].text);
    assert.ok(bytes <= LINE_BYTES_MAX && bytes > LINE_BYTES_MAX - 4, `${bytes}`);
    assert.ok(logs[0].text.endsWith('é… [cut]'));
    assert.equal(dropped, 2 * LINE_BYTES_MAX - bytes);
  }));

test('what is over an invocation\'s limit is counted to the byte', () =>
  withFlow(async (runtime) => {
    const { logs, dropped } = await runtime.evaluate('(() => { for (let n = 0; n < 100; n++) console.log("0123456789abcdefghij") })()', {}, { logBytesMax: 210 });
    assert.equal(logs.length, 10);
    assert.equal(dropped, 1800);
    const empty = await runtime.evaluate('(() => { for (let n = 0; n < 1e5; n++) console.log() })()', {}, { logBytesMax: 1600 });
    assert.equal(empty.logs.length, 100);
    assert.equal((await runtime.evaluate('console.log("fresh")')).logs.length, 1);
  }));

test('a flood of a million lines ends soon, in bounded memory, and nobody else is silenced', () =>
  withApp(appOf(`async ({ event }) => {
    if (!event.inputConfig.flood) { await new Promise((done) => setTimeout(done, 20)); return console.log('quiet'); }
    const before = process.memoryUsage.rss();
    for (let n = 0; n < 1e6; n++) console.log('flood '.repeat(10));
    return process.memoryUsage.rss() - before;
  }`), async (runtime) => {
    const quiet = runtime.begin('event', eventPayload('one', {}));
    const started = performance.now();
    const { result, dropped, logs } = await runtime.event('one', { flood: true });
    assert.ok(performance.now() - started < 10_000);
    assert.ok(result < 64e6, `${result} bytes more`);
    const kept = logs.reduce((sum, line) => sum + line.text.length, 0);
    assert.ok(kept > 1e6 - 100 && kept <= 1024 * 1024, `${kept}`);
    assert.equal(kept + dropped, 60e6);
    await quiet.ended;
    assert.deepEqual(quiet.logs.map((line) => line.text), ['quiet']);
  }));

test('a worker that does not read costs log, not memory', () =>
  withFlow(async (runtime) => {
    runtime.pause();
    const source = '(() => { for (let n = 0; n < 1e5; n++) console.log("x".repeat(1000)); return process.memoryUsage.rss() })()';
    const job = runtime.begin('evaluate', { expressions: { value: source } }, { logBytesMax: 0xffffffff });
    setTimeout(() => runtime.resume(), 300);
    const { result, dropped } = await job.ended;
    assert.ok(dropped > 50e6, `${dropped}`);
    assert.ok(result.value < 250e6, `${result.value}`);
    const kept = job.logs.reduce((sum, line) => sum + line.text.length, 0);
    assert.equal(kept + dropped, 100e6);
  }));
