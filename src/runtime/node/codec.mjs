// The part of msgpack that the wire contract uses: nil, booleans, integers,
// floats, text, byte strings, arrays, and maps with text for keys. Extension
// types are refused. Integers of 64 bits beyond what a number holds exactly
// become BigInt. Integers and lengths take their shortest form, as the Rust
// side writes them, so a message that is decoded and encoded again is the same.

import {
  ArrayIsArray, BufferAlloc, BufferByteLength, BytesBuffer, BytesLength, BytesOffset, BytesSet, DataViewOf,
  GetBigInt64, GetBigUint64, GetFloat32, GetFloat64, IsInteger, MapGet, MapSet, MapSize, ObjectKeys, SetBigInt64,
  SetBigUint64, SetFloat64, Utf8Slice, Utf8Write,
  isUint8Array,
} from './primordials.mjs';

/** How deep values may be nested; the contract needs six. */
const DEPTH_MAX = 64;
/** How many different keys are kept in encoded form; the contract has fewer than a hundred. */
const KEYS_MAX = 256;
const NumberOf = Number;
const BigIntOf = BigInt;
const ArrayOf = Array;
const Bytes = Uint8Array;
const EXACT_MAX = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * Something that values are appended to, each with a length of four bytes in front.
 * `take()` hands out what was written and starts anew.
 */
export function createWriter(bytesAtFirst) {
  const keys = new Map();
  let buffer = BufferAlloc(bytesAtFirst);
  let at = 0;

  function room(bytes) {
    if (at + bytes <= buffer.length) return;
    let size = buffer.length * 2;
    while (size < at + bytes) size *= 2;
    const larger = BufferAlloc(size);
    BytesSet(larger, buffer, 0);
    buffer = larger;
  }

  function u16(value) {
    buffer[at++] = value >>> 8;
    buffer[at++] = value;
  }

  function u32(value) {
    buffer[at++] = value >>> 24;
    buffer[at++] = value >>> 16;
    buffer[at++] = value >>> 8;
    buffer[at++] = value;
  }

  /** A tag and a length: `small` holds lengths below `smallMax` in itself; `tag8` is 0 where there is no such form. */
  function head(length, small, smallMax, tag8, tag16, tag32) {
    room(5);
    if (length < smallMax) buffer[at++] = small | length;
    else if (tag8 !== 0 && length < 0x100) {
      buffer[at++] = tag8;
      buffer[at++] = length;
    } else if (length < 0x10000) {
      buffer[at++] = tag16;
      u16(length);
    } else {
      buffer[at++] = tag32;
      u32(length);
    }
  }

  function text(value) {
    const length = BufferByteLength(value);
    head(length, 0xa0, 32, 0xd9, 0xda, 0xdb);
    room(length);
    Utf8Write(buffer, value, at, length);
    at += length;
  }

  function key(name) {
    let encoded = MapGet(keys, name);
    if (encoded === undefined) {
      const start = at;
      text(name);
      if (MapSize(keys) < KEYS_MAX) {
        encoded = new Bytes(at - start);
        for (let index = 0; index < at - start; index++) encoded[index] = buffer[start + index];
        MapSet(keys, name, encoded);
      }
      return;
    }
    const length = BytesLength(encoded);
    room(length);
    BytesSet(buffer, encoded, at);
    at += length;
  }

  function big(value) {
    room(9);
    const view = new DataViewOf(BytesBuffer(buffer), BytesOffset(buffer), buffer.length);
    if (value >= 0n && value <= 0xffffffffffffffffn) {
      buffer[at++] = 0xcf;
      SetBigUint64(view, at, value);
    } else if (value < 0n && value >= -0x8000000000000000n) {
      buffer[at++] = 0xd3;
      SetBigInt64(view, at, value);
    } else throw new RangeError('an integer does not fit in 64 bits');
    at += 8;
  }

  function float(value) {
    room(9);
    buffer[at++] = 0xcb;
    SetFloat64(new DataViewOf(BytesBuffer(buffer), BytesOffset(buffer), buffer.length), at, value);
    at += 8;
  }

  function number(value) {
    if (!IsInteger(value)) return float(value);
    room(9);
    if (value >= 0) {
      if (value < 0x80) buffer[at++] = value;
      else if (value < 0x100) {
        buffer[at++] = 0xcc;
        buffer[at++] = value;
      } else if (value < 0x10000) {
        buffer[at++] = 0xcd;
        u16(value);
      } else if (value < 0x100000000) {
        buffer[at++] = 0xce;
        u32(value);
      } else {
        buffer[at++] = 0xcf;
        u32(value / 0x100000000);
        u32(value);
      }
    } else if (value >= -0x20) buffer[at++] = value;
    else if (value >= -0x80) {
      buffer[at++] = 0xd0;
      buffer[at++] = value;
    } else if (value >= -0x8000) {
      buffer[at++] = 0xd1;
      u16(value);
    } else if (value >= -0x80000000) {
      buffer[at++] = 0xd2;
      u32(value);
    } else big(BigIntOf(value));
  }

  function any(value, depth) {
    if (depth > DEPTH_MAX) throw new RangeError('a message is nested too deep');
    switch (typeof value) {
      case 'string': return text(value);
      case 'number': return number(value);
      case 'boolean':
        room(1);
        buffer[at++] = value ? 0xc3 : 0xc2;
        return;
      case 'bigint': return big(value);
      case 'object': break;
      default: throw new TypeError(`a message cannot hold a ${typeof value}`);
    }
    if (value === null) {
      room(1);
      buffer[at++] = 0xc0;
    } else if (isUint8Array(value)) {
      const length = BytesLength(value);
      head(length, 0, 0, 0xc4, 0xc5, 0xc6);
      room(length);
      BytesSet(buffer, value, at);
      at += length;
    } else if (ArrayIsArray(value)) {
      head(value.length, 0x90, 16, 0, 0xdc, 0xdd);
      for (let index = 0; index < value.length; index++) any(value[index], depth + 1);
    } else {
      const names = ObjectKeys(value);
      head(names.length, 0x80, 16, 0, 0xde, 0xdf);
      for (let index = 0; index < names.length; index++) {
        key(names[index]);
        any(value[names[index]], depth + 1);
      }
    }
  }

  return {
    __proto__: null,
    /** Appends one message; nothing of it stays if it cannot be written or is over `bytesMax`. */
    frame(message, bytesMax) {
      const start = at;
      try {
        room(4);
        at += 4;
        any(message, 0);
        const length = at - start - 4;
        if (length > bytesMax) throw new RangeError(`a message of ${length} bytes is over the limit of ${bytesMax}`);
        const end = at;
        at = start;
        u32(length);
        at = end;
      } catch (error) {
        at = start;
        throw error;
      }
    },
    bytes: () => at,
    take() {
      const written = new Bytes(BytesBuffer(buffer), BytesOffset(buffer), at);
      at = 0;
      if (buffer.length > bytesAtFirst) {
        buffer = BufferAlloc(bytesAtFirst);
        return written;
      }
      // A copy is cheaper than a new buffer each time.
      return new Bytes(written);
    },
  };
}

/** Encodes one value. For tests; the harness writes through a writer of its own. */
export function encode(value) {
  const writer = createWriter(64);
  writer.frame(value, 0xffffffff);
  return writer.take().subarray(4);
}

/** Decodes the one value in `bytes`; byte strings are views into it. */
export function decode(bytes) {
  const reader = { __proto__: null, bytes, at: 0, end: BytesLength(bytes), view: null };
  const value = read(reader, 0);
  if (reader.at !== reader.end) throw new RangeError('bytes follow the end of the message');
  return value;
}

function read(reader, depth) {
  if (depth > DEPTH_MAX) throw new RangeError('a message is nested too deep');
  const tag = uint(reader, 1);
  if (tag < 0x80) return tag;
  if (tag < 0x90) return readMap(reader, tag & 0x0f, depth);
  if (tag < 0xa0) return readArray(reader, tag & 0x0f, depth);
  if (tag < 0xc0) return readText(reader, tag & 0x1f);
  if (tag >= 0xe0) return tag - 0x100;
  switch (tag) {
    case 0xc0: return null;
    case 0xc2: return false;
    case 0xc3: return true;
    case 0xc4: return readBytes(reader, uint(reader, 1));
    case 0xc5: return readBytes(reader, uint(reader, 2));
    case 0xc6: return readBytes(reader, uint(reader, 4));
    case 0xca: return GetFloat32(viewOf(reader), take(reader, 4));
    case 0xcb: return GetFloat64(viewOf(reader), take(reader, 8));
    case 0xcc: return uint(reader, 1);
    case 0xcd: return uint(reader, 2);
    case 0xce: return uint(reader, 4);
    case 0xcf: return exact(GetBigUint64(viewOf(reader), take(reader, 8)));
    case 0xd0: return (uint(reader, 1) << 24) >> 24;
    case 0xd1: return (uint(reader, 2) << 16) >> 16;
    case 0xd2: return uint(reader, 4) | 0;
    case 0xd3: return exact(GetBigInt64(viewOf(reader), take(reader, 8)));
    case 0xd9: return readText(reader, uint(reader, 1));
    case 0xda: return readText(reader, uint(reader, 2));
    case 0xdb: return readText(reader, uint(reader, 4));
    case 0xdc: return readArray(reader, uint(reader, 2), depth);
    case 0xdd: return readArray(reader, uint(reader, 4), depth);
    case 0xde: return readMap(reader, uint(reader, 2), depth);
    case 0xdf: return readMap(reader, uint(reader, 4), depth);
    default: throw new TypeError(`a message holds the type ${tag}, which the contract does not use`);
  }
}

/** Moves past `bytes` bytes and answers where they begin. */
function take(reader, bytes) {
  const start = reader.at;
  if (start + bytes > reader.end) throw new RangeError('the message ends too early');
  reader.at = start + bytes;
  return start;
}

function uint(reader, bytes) {
  let at = take(reader, bytes);
  let value = 0;
  for (; at < reader.at; at++) value = value * 0x100 + reader.bytes[at];
  return value;
}

function viewOf(reader) {
  reader.view ??= new DataViewOf(BytesBuffer(reader.bytes), BytesOffset(reader.bytes), reader.end);
  return reader.view;
}

function exact(value) {
  return value >= -EXACT_MAX && value <= EXACT_MAX ? NumberOf(value) : value;
}

function readText(reader, length) {
  const start = take(reader, length);
  return Utf8Slice(reader.bytes, start, start + length);
}

function readBytes(reader, length) {
  const start = take(reader, length);
  return new Bytes(BytesBuffer(reader.bytes), BytesOffset(reader.bytes) + start, length);
}

function readArray(reader, length, depth) {
  // Each element takes a byte at least: a length that cannot be is refused before room is made for it.
  if (length > reader.end - reader.at) throw new RangeError('the message ends too early');
  const values = new ArrayOf(length);
  for (let index = 0; index < length; index++) values[index] = read(reader, depth + 1);
  return values;
}

function readMap(reader, length, depth) {
  const map = { __proto__: null };
  for (let index = 0; index < length; index++) {
    const name = read(reader, depth + 1);
    if (typeof name !== 'string') throw new TypeError('a map has a key that is not text');
    map[name] = read(reader, depth + 1);
  }
  return map;
}
