// Evaluates a flow's expressions.
//
// Each source becomes a strict function, once, and is kept. It sees `outputs`,
// `signals`, `secrets`, `ref()`, `encrypt()`, `decrypt()` and whatever else the
// job's scope names, and the globals of JavaScript and Node. Promises are
// awaited, and an expression may use `await` itself.
//
// `encrypt(key, text)` is AES-256-GCM with a fresh 12-byte nonce; `key` is the
// base64 of 32 bytes, the answer the base64 of nonce, ciphertext and 16-byte
// tag in this order, which is what Web Crypto's AES-GCM makes and takes too.

import { EXPRESSION_URL, Refusal, listed, messageOf } from './failure.mjs';
import { toJson } from './invocations.mjs';
import {
  ArrayJoin, ArraySort, AsyncFunctionConstructor, FunctionConstructor, JSONStringify, MapDelete, MapFirstKey, MapGet,
  MapSet, MapSize, ObjectHasOwn, ObjectKeys, RegExpExec, StringIncludes, StringIndexOf, StringSlice, apply, builtin,
} from './primordials.mjs';

/** How many compiled expressions are kept, and their sources' size in UTF-16 units; the oldest used goes first. */
const KEPT_MAX = 2000;
const KEPT_UNITS_MAX = 4 * 1024 * 1024;
/** The longest expression, in UTF-16 units. */
const SOURCE_UNITS_MAX = 1024 * 1024;

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const identifier = /^[A-Za-z_$][\w$]*$/;
const RESERVED = ['outputs', 'signals', 'secrets', 'ref', 'encrypt', 'decrypt'];

const compiled = new Map();
let compiledUnits = 0;

/**
 * Evaluates the expressions of a job in order. Answers the JSON of
 * `{key: value}`, or a promise of it where one of them is a promise.
 * Throws what an expression threw, with its key in `where.key`.
 */
export function evaluate(payload, where) {
  const { expressions } = payload;
  if (expressions === null || typeof expressions !== 'object') {
    throw new Refusal('unacceptable', 'the job has no `expressions` object');
  }
  const scope = scopeOf(payload.scope ?? {});
  const keys = ObjectKeys(expressions);
  return from(0, '');

  /** The expressions from `at` on; leaves the synchronous path at the first promise. */
  function from(at, json) {
    for (; at < keys.length; at++) {
      const key = keys[at];
      where.key = key;
      const value = apply(compile(expressions[key], scope.names, key), undefined, scope.values);
      if (isThenable(value)) return later(value, at, json);
      json += entry(key, value, json);
    }
    where.key = undefined;
    return `{${json}}`;
  }

  async function later(promise, at, json) {
    const key = keys[at];
    const value = await promise;
    return from(at + 1, json + entry(key, value, json));
  }
}

const isThenable = (value) => value !== null && typeof value === 'object' && typeof value.then === 'function';

/** One member of the result's JSON. */
function entry(key, value, before) {
  const comma = before === '' ? '' : ',';
  return `${comma}${JSONStringify(key)}:${toJson(value, `the value of \`${key}\``, key)}`;
}

// === Scope ===

function scopeOf(given) {
  const outputs = given.outputs ?? {};
  const signals = given.signals ?? {};
  const secrets = given.secrets ?? {};
  const ref = (path) => resolve(path, { __proto__: null, output: outputs, signal: signals, secret: secrets });
  let names = RESERVED;
  let values = [outputs, signals, secrets, ref, encrypt, decrypt];
  const more = ArraySort(ObjectKeys(given));
  for (let at = 0; at < more.length; at++) {
    const name = more[at];
    if (isReserved(name) || RegExpExec(identifier, name) === null) continue;
    names = append(names, name);
    values = append(values, given[name]);
  }
  return { names, values };
}

function isReserved(name) {
  for (let at = 0; at < RESERVED.length; at++) if (RESERVED[at] === name) return true;
  return false;
}

function append(list, item) {
  const longer = { __proto__: null, length: list.length + 1 };
  for (let at = 0; at < list.length; at++) longer[at] = list[at];
  longer[list.length] = item;
  return longer;
}

/** `ref("signal.name.key")`, `ref("secret.KEY")`, `ref("output.block.field")`. */
function resolve(path, roots) {
  if (typeof path !== 'string') throw new TypeError('ref() takes text such as "signal.block.name"');
  let value;
  let known = roots;
  let walked = '';
  let at = 0;
  while (at <= path.length) {
    let end = StringIndexOf(path, '.', at);
    if (end === -1) end = path.length;
    let name = StringSlice(path, at, end);
    if (walked === '' && (name === 'outputs' || name === 'signals' || name === 'secrets')) name = StringSlice(name, 0, -1);
    if (known === null || typeof known !== 'object' || !ObjectHasOwn(known, name)) {
      throw new ReferenceError(`ref("${path}"): ${missing(known, walked, name)}`);
    }
    value = known[name];
    known = value;
    walked += (walked === '' ? '' : '.') + name;
    at = end + 1;
  }
  return value;
}

function missing(known, walked, name) {
  if (walked === '') return 'a reference begins with signal, secret or output';
  const names = known !== null && typeof known === 'object' ? ObjectKeys(known) : [];
  return `\`${walked}\` has no \`${name}\`; there are: ${listed(names)}`;
}

function keyBytes(key, name) {
  const bytes = typeof key === 'string' ? Buffer.from(key, 'base64') : Buffer.alloc(0);
  if (bytes.length !== KEY_BYTES) throw new TypeError(`${name}() takes a key that is the base64 of ${KEY_BYTES} bytes`);
  return bytes;
}

function encrypt(key, text) {
  const secret = keyBytes(key, 'encrypt');
  if (typeof text !== 'string') throw new TypeError(`encrypt() takes text, not a ${typeof text}: use JSON.stringify`);
  const { createCipheriv, randomBytes } = builtin('node:crypto');
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', secret, nonce);
  const body = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final()]);
  return Buffer.concat([body, cipher.getAuthTag()]).toString('base64');
}

function decrypt(key, data) {
  const secret = keyBytes(key, 'decrypt');
  const bytes = typeof data === 'string' ? Buffer.from(data, 'base64') : Buffer.alloc(0);
  if (bytes.length < NONCE_BYTES + TAG_BYTES) throw new TypeError('decrypt() takes what encrypt() made');
  const { createDecipheriv } = builtin('node:crypto');
  const end = bytes.length - TAG_BYTES;
  const decipher = createDecipheriv('aes-256-gcm', secret, bytes.subarray(0, NONCE_BYTES));
  decipher.setAuthTag(bytes.subarray(end));
  try {
    return decipher.update(bytes.subarray(NONCE_BYTES, end), undefined, 'utf8') + decipher.final('utf8');
  } catch {
    throw new Error('decrypt(): the key is another one, or the data was changed');
  }
}

// === Compiling ===

function compile(source, names, key) {
  if (typeof source !== 'string') throw new Refusal('unacceptable', `expression \`${key}\` is no text`, key);
  if (source.length > SOURCE_UNITS_MAX) {
    throw new Refusal('unacceptable', `expression \`${key}\` is longer than ${SOURCE_UNITS_MAX} characters`, key);
  }
  // No source begins with a NUL, so the two forms are never taken for each other.
  const id = names === RESERVED ? source : `\0${ArrayJoin(names, ',')}\n${source}`;
  let found = MapGet(compiled, id);
  if (found === undefined) {
    found = parse(source, ArrayJoin(names, ','), key);
    compiledUnits += id.length;
  } else if (MapSize(compiled) < KEPT_MAX / 2) return found;
  else MapDelete(compiled, id);
  // Set anew when it fills up, so that the map's first key is one long unused.
  MapSet(compiled, id, found);
  while (MapSize(compiled) > KEPT_MAX || compiledUnits > KEPT_UNITS_MAX) {
    const oldest = MapFirstKey(compiled);
    MapDelete(compiled, oldest);
    compiledUnits -= oldest.length;
  }
  return found;
}

function parse(source, parameters, key) {
  // Three lines stand before the source: EXPRESSION_LINES_BEFORE.
  const body = `"use strict"; return (\n${source}\n)\n//# sourceURL=${EXPRESSION_URL}`;
  try {
    // Brackets refuse what only parses by closing our parenthesis: `1) ; evil(2`.
    new AsyncFunctionConstructor(parameters, `"use strict"; return [\n${source}\n]`);
    // Outside of an async function `await (x)` would parse, as a call.
    const Kind = StringIncludes(source, 'await') ? AsyncFunctionConstructor : FunctionConstructor;
    return new Kind(parameters, body);
  } catch (error) {
    throw new Refusal('syntax', `expression \`${key}\` does not parse: ${syntaxText(source, error)}`, key);
  }
}

/** What is wrong and where: a script of the expression alone tells the line. */
function syntaxText(source, error) {
  try {
    const { Script } = builtin('node:vm');
    new Script(source, { __proto__: null, filename: EXPRESSION_URL });
  } catch (own) {
    const found = RegExpExec(/expression:(\d+)\n/, own.stack ?? '');
    return messageOf(own) + (found === null ? '' : ` (line ${found[1]})`);
  }
  return messageOf(error);
}
