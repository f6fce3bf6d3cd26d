// The process itself: its first words, its end, and what it does with nonsense.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { encode } from '../../src/runtime/node/codec.mjs';
import { Runtime, appOf, eventPayload, withApp, withFlow } from './support/worker.mjs';

test('hello names protocol, version and posture, before anything else', () =>
  withFlow(async (runtime) => {
    const { protocol, node, posture } = runtime.hello;
    assert.equal(protocol, 1);
    assert.match(node, /^v\d+\.\d+/);
    const status = readFileSync('/proc/self/status', 'utf8');
    const field = (name) => status.match(new RegExp(`^${name}:\\s*(\\S+)`, 'm'))[1];
    assert.equal(posture.uid, process.geteuid());
    assert.equal(posture.no_new_privileges, field('NoNewPrivs') === '1');
    assert.equal(posture.seccomp, Number(field('Seccomp')));
    const capabilities = BigInt(`0x${field('CapEff')}`) | BigInt(`0x${field('CapPrm')}`) | BigInt(`0x${field('CapBnd')}`);
    assert.equal(BigInt(posture.capabilities), capabilities);
    assert.equal(typeof posture.root_writable, 'boolean');
  }));

test('a ping is answered while handlers wait', () =>
  withApp(appOf('() => new Promise(() => {})'), async (runtime) => {
    runtime.begin('event', eventPayload('one', {}));
    runtime.send({ ping: { number: 7 } });
    assert.deepEqual({ ...(await runtime.message('pong')).pong }, { number: 7 });
  }));

test('the end of the socket is the end of the process', async () => {
  const runtime = await Runtime.flow();
  assert.deepEqual(await runtime.stop(), { code: 0, signal: null });
});

test('an exit by the app says so and keeps its code', async () => {
  const runtime = await Runtime.app(appOf('() => { events.emit("on its way"); process.exit(3); }'));
  const one = runtime.begin('event', eventPayload('one', {}));
  await assert.rejects(one.ended, /the harness is gone/);
  assert.deepEqual(await runtime.exited, { code: 3, signal: null });
  assert.deepEqual(one.calls.map((call) => call.args), [['on its way']]);
  assert.deepEqual(one.logs, [{ level: 'error', text: 'process.exit(3) was called by the app, which ends its runtime' }]);
});

test('messages that make no sense end the process loudly', async () => {
  const nonsense = [
    [{ dance: {} }, /does not know/],
    [Buffer.from([0, 0, 0, 1, 0xc1]), /type 193/],
    [Buffer.from([0, 0, 0, 2, 0xc4, 9]), /ends too early/],
    [Buffer.from([0xff, 0xff, 0xff, 0xff]), /over the limit of 8388608/],
  ];
  for (const [message, words] of nonsense) {
    const runtime = await Runtime.flow();
    if (Buffer.isBuffer(message)) runtime.sendBytes(message);
    else runtime.send(message);
    assert.equal((await runtime.exited).code, 70);
    assert.match(runtime.stderr, words);
  }
});

test('messages may come in any pieces', () =>
  withFlow(async (runtime) => {
    const payload = Buffer.from(JSON.stringify({ expressions: { value: 'outputs.length' }, scope: { outputs: 'y'.repeat(300_000) } }));
    const invoke = (invocation) => encode({ invoke: { invocation, kind: 'evaluate', log_bytes_max: 0, payload } });
    const bytes = Buffer.concat([1001, 1002].flatMap((number) => {
      const body = invoke(number);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(body.length);
      return [length, body];
    }));
    const done = [runtime.message('done'), runtime.message('done')];
    const cuts = [0, 1, 3, 5, 70_000, 300_150, 300_153, 300_156, bytes.length];
    for (let at = 1; at < cuts.length; at++) {
      runtime.sendBytes(bytes.subarray(cuts[at - 1], cuts[at]));
      await new Promise((next) => setTimeout(next, 5));
    }
    for (const [n, one] of (await Promise.all(done)).entries()) {
      assert.equal(one.done.invocation, 1001 + n);
      assert.equal(Buffer.from(one.done.result).toString(), '{"value":300000}');
    }
  }));

test('an invocation before the runtime has an identity is refused', async () => {
  const runtime = await Runtime.start();
  const { failure } = await runtime.evaluate('1');
  assert.equal(failure.cause, 'unacceptable');
  await runtime.stop();
});
