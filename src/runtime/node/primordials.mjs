// What the harness relies on of JavaScript and Node, taken before any user code runs.
//
// An app may replace `JSON.stringify`, `Array.prototype.push` or a method of
// `Map` for good reasons and bad ones. The harness goes on working, because it
// calls nothing of that kind by name afterwards: only what this module holds.
// Beyond these functions its files keep to a few habits: no `for…of`, spread or
// array destructuring (they call the array iterator), no growing arrays (a
// setter for "0" on Array.prototype would see the elements), no look-up on
// objects that inherit from Object.prototype where a key may be missing.
//
// Node has such spots of its own: with async context in use, versions up to 22
// call Array.prototype.pop and Function.prototype.apply by name. An app that
// breaks these breaks its runtime, which is retired then.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { createRequire } from 'node:module';
import { format, inspect, types } from 'node:util';

/** `uncurry(Map.prototype.get)(map, key)`; the bound function needs nothing of Function.prototype later. */
const uncurry = Function.prototype.bind.bind(Function.prototype.call);
const getter = (prototype, name) => uncurry(Object.getOwnPropertyDescriptor(prototype, name).get);
const TypedArray = Object.getPrototypeOf(Uint8Array.prototype);

/** A module of Node's that most runtimes never need, loaded when one does: each costs memory in all of them. */
export const builtin = process.getBuiltinModule?.bind(process) ?? createRequire(import.meta.url);

export const apply = Reflect.apply;

export const JSONParse = JSON.parse;
export const JSONStringify = JSON.stringify;

export const ObjectDefineProperty = Object.defineProperty;
export const ObjectFreeze = Object.freeze;
export const ObjectGetOwnPropertyDescriptor = Object.getOwnPropertyDescriptor;
export const ObjectGetPrototypeOf = Object.getPrototypeOf;
export const ObjectHasOwn = Object.hasOwn;
export const ObjectKeys = Object.keys;
export const OwnKeys = Reflect.ownKeys;
export const ArrayIsArray = Array.isArray;
export const ArraySort = uncurry(Array.prototype.sort);
export const ArrayJoin = uncurry(Array.prototype.join);
export const IsInteger = Number.isSafeInteger;
export const FunctionConstructor = Function;
export const AsyncFunctionConstructor = (async () => {}).constructor;

export const NativeMap = Map;
export const MapGet = uncurry(Map.prototype.get);
export const MapSet = uncurry(Map.prototype.set);
export const MapHas = uncurry(Map.prototype.has);
export const MapDelete = uncurry(Map.prototype.delete);
export const MapForEach = uncurry(Map.prototype.forEach);
export const MapSize = getter(Map.prototype, 'size');
const mapKeys = uncurry(Map.prototype.keys);
const mapNext = uncurry(Object.getPrototypeOf(new Map().keys()).next);
/** The key that was set first, of a map that is not empty. */
export const MapFirstKey = (map) => mapNext(mapKeys(map)).value;

export const StringCharCodeAt = uncurry(String.prototype.charCodeAt);
export const StringIncludes = uncurry(String.prototype.includes);
export const StringIndexOf = uncurry(String.prototype.indexOf);
export const StringSlice = uncurry(String.prototype.slice);
export const StringStartsWith = uncurry(String.prototype.startsWith);
export const RegExpExec = uncurry(RegExp.prototype.exec);

export const BufferAlloc = Buffer.allocUnsafeSlow;
export const BufferByteLength = Buffer.byteLength;
export const BufferFrom = Buffer.from;
export const Utf8Slice = uncurry(Buffer.prototype.utf8Slice);
export const Utf8Write = uncurry(Buffer.prototype.utf8Write);
export const Base64Slice = uncurry(Buffer.prototype.base64Slice);
const Bytes = Uint8Array;
/** `Buffer.from(text)` without the methods it looks up. */
export function utf8Bytes(text) {
  const length = BufferByteLength(text);
  const bytes = new Bytes(length);
  Utf8Write(bytes, text, 0, length);
  return bytes;
}
export const BytesSet = uncurry(TypedArray.set);
export const BytesBuffer = getter(TypedArray, 'buffer');
export const BytesOffset = getter(TypedArray, 'byteOffset');
export const BytesLength = getter(TypedArray, 'length');
export const DataViewOf = DataView;
export const GetFloat32 = uncurry(DataView.prototype.getFloat32);
export const GetFloat64 = uncurry(DataView.prototype.getFloat64);
export const GetBigUint64 = uncurry(DataView.prototype.getBigUint64);
export const GetBigInt64 = uncurry(DataView.prototype.getBigInt64);
export const SetFloat64 = uncurry(DataView.prototype.setFloat64);
export const SetBigUint64 = uncurry(DataView.prototype.setBigUint64);
export const SetBigInt64 = uncurry(DataView.prototype.setBigInt64);
export const isUint8Array = types.isUint8Array;
export const isAnyArrayBuffer = types.isAnyArrayBuffer;
export const isNativeError = types.isNativeError;

export const NativePromise = Promise;
const promiseThen = uncurry(Promise.prototype.then);
/** `promise.then(done, failed)` that a replaced `then`, `constructor` or species does not see. */
export function settled(promise, done, failed) {
  ObjectDefineProperty(promise, 'constructor', { __proto__: null, value: NativePromise, configurable: true });
  const derived = promiseThen(promise, done, failed);
  delete promise.constructor;
  return derived;
}

export const nextTick = process.nextTick;
export const setImmediateOf = setImmediate;
export const formatText = format;
export const inspectText = inspect;

/** Copies the methods that `object` inherits onto itself, so that a prototype replaced later changes nothing. */
export function ownMethods(object) {
  const prototypeOfAll = Object.prototype;
  let prototype = ObjectGetPrototypeOf(object);
  while (prototype !== null && prototype !== prototypeOfAll) {
    const keys = OwnKeys(prototype);
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at];
      if (key === 'constructor' || ObjectHasOwn(object, key)) continue;
      const descriptor = ObjectGetOwnPropertyDescriptor(prototype, key);
      descriptor.enumerable = false;
      ObjectDefineProperty(object, key, descriptor);
    }
    prototype = ObjectGetPrototypeOf(prototype);
  }
  return object;
}

/** A place to keep a value for everything that is asynchronously caused by a function. */
export function createStorage() {
  const storage = ownMethods(new AsyncLocalStorage());
  const { run, getStore } = storage;
  const runInScope = AsyncResource.prototype.runInAsyncScope;
  const options = ObjectFreeze({ __proto__: null, requireManualDestroy: true });
  return {
    __proto__: null,
    current: () => apply(getStore, storage, []),
    // A resource of its own, because the one at hand is the socket's, and
    // `executionAsyncResource()` would hand it to the app.
    run(value, enter) {
      const resource = new AsyncResource('SLUICE_INVOCATION', options);
      return apply(runInScope, resource, [run, storage, value, enter]);
    },
  };
}
