// The codec against the golden vectors that Rust wrote, and against nonsense.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { createWriter, decode, encode } from '../../src/runtime/node/codec.mjs';
import { REPOSITORY, embeddedFiles } from './support/worker.mjs';

const VECTORS = join(REPOSITORY, 'proto/vectors');

/** As JSON has it in the vectors: byte strings are arrays of numbers, maps are plain objects. */
function plain(value) {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

test('every golden vector is read as its JSON says and written again byte for byte', () => {
  const names = readdirSync(VECTORS).filter((name) => name.endsWith('.msgpack'));
  assert.ok(names.length > 30, `${names.length} vectors`);
  for (const name of names) {
    const bytes = readFileSync(join(VECTORS, name));
    const value = decode(bytes);
    assert.deepEqual(plain(value), JSON.parse(readFileSync(join(VECTORS, name.replace('.msgpack', '.json')), 'utf8')), name);
    assert.deepEqual(Buffer.from(encode(value)), bytes, name);
  }
});

test('a vector that is cut short is refused', () => {
  for (const name of readdirSync(VECTORS).filter((file) => file.startsWith('harness.to_runtime') && file.endsWith('.msgpack'))) {
    const bytes = readFileSync(join(VECTORS, name));
    for (let end = 0; end < bytes.length; end++) assert.throws(() => decode(bytes.subarray(0, end)), /ends too early/, `${name} at ${end}`);
    assert.throws(() => decode(Buffer.concat([bytes, Buffer.from([0])])), /bytes follow/);
  }
});

test('integers of every size keep their value and take their shortest form', () => {
  const cases = [
    [0, 1], [127, 1], [128, 2], [255, 2], [256, 3], [65_535, 3], [65_536, 5], [2 ** 32 - 1, 5], [2 ** 32, 9], [Number.MAX_SAFE_INTEGER, 9],
    [-1, 1], [-32, 1], [-33, 2], [-128, 2], [-129, 3], [-32_768, 3], [-32_769, 5], [-(2 ** 31), 5], [-(2 ** 31) - 1, 9],
  ];
  for (const [value, length] of cases) {
    assert.equal(encode(value).length, length, `${value}`);
    assert.equal(decode(encode(value)), value);
  }
  for (const value of [2n ** 64n - 1n, 2n ** 53n, -(2n ** 63n)]) assert.equal(decode(encode(value)), value);
  assert.throws(() => encode(2n ** 64n), /64 bits/);
});

test('text, bytes, arrays and maps of every size come back', () => {
  for (const length of [0, 31, 32, 255, 256, 65_535, 65_536, 200_000]) {
    const text = 'ß'.repeat(length);
    assert.equal(decode(encode(text)), text);
    assert.deepEqual(decode(encode(new Uint8Array(length).fill(7))), new Uint8Array(length).fill(7));
    const list = Array.from({ length }, (_, n) => n);
    assert.deepEqual(decode(encode(list)), list);
  }
  const map = Object.fromEntries(Array.from({ length: 300 }, (_, n) => [`key ${n}`, n]));
  assert.deepEqual({ ...decode(encode(map)) }, map);
  assert.deepEqual(decode(encode([null, true, false, 1.5, -0.25, '😀'])), [null, true, false, 1.5, -0.25, '😀']);
  assert.equal(decode(Buffer.from('ca3fc00000', 'hex')), 1.5);
});

test('a map key cannot reach a prototype', () => {
  const value = decode(encode(JSON.parse('{"__proto__": {"polluted": true}}')));
  assert.equal(Object.getPrototypeOf(value), null);
  assert.equal({}.polluted, undefined);
});

test('what the contract does not use is refused', () => {
  for (const bytes of ['c1', 'd40100', 'c7010100', 'd8' + '00'.repeat(17)]) assert.throws(() => decode(Buffer.from(bytes, 'hex')), /does not use/);
  assert.throws(() => decode(Buffer.from('810102', 'hex')), /not text/);
  assert.throws(() => decode(Buffer.from('ddffffffff', 'hex')), /ends too early/);
  assert.throws(() => decode(Buffer.alloc(100, 0x91)), /too deep/);
  for (const value of [undefined, () => {}, Symbol('s')]) assert.throws(() => encode(value), TypeError);
});

test('a message over the limit leaves nothing behind in its writer', () => {
  const writer = createWriter(16);
  writer.frame({ a: 1 }, 100);
  const before = writer.bytes();
  assert.throws(() => writer.frame({ text: 'x'.repeat(200) }, 100), /message of 208 bytes is over the limit of 100/);
  assert.equal(writer.bytes(), before);
  assert.deepEqual(Buffer.from(writer.take()), Buffer.from('0000000481a16101', 'hex'));
});

test('every file of the harness is embedded', () => {
  const listed = embeddedFiles().map(([, source]) => source).sort();
  const root = join(REPOSITORY, 'src/runtime/node');
  const there = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1))
    .sort();
  assert.deepEqual(listed, there);
});
