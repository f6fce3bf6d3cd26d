// Errors of user code as the contract's `Failure`: a cause, one sentence, and
// the stack down to the frames that are the user's.
//
// Whatever is thrown at the harness may be hostile: a getter for `message` that
// throws, a stack of a gigabyte. Nothing here lets that through.

import {
  ArrayJoin, BufferByteLength, RegExpExec, StringIncludes, StringIndexOf, StringSlice,
  StringStartsWith, Utf8Slice, inspectText, isNativeError, utf8Bytes,
} from './primordials.mjs';

/** How much of a message and of a stack is kept, in bytes each: ERROR_TEXT_BYTES_MAX of the contract. */
export const ERROR_TEXT_BYTES_MAX = 16 * 1024;
/** Names the source of an expression in stacks; evaluate.mjs puts this many lines before it. */
export const EXPRESSION_URL = 'expression';
export const EXPRESSION_LINES_BEFORE = 3;

const SHALLOW = { __proto__: null, depth: 2 };
const CUT = '… [cut]';
// Paths, because frames of the harness name a path and those of an app a URL.
const HARNESS = new URL('./', import.meta.url).pathname;
const RUN = new URL('./run/', import.meta.url).pathname;
const expressionLine = /\bexpression:(\d+)/;

/** A failure of the harness's own making. */
export class Refusal extends Error {
  constructor(cause, message, key) {
    super(message);
    this.refused = cause;
    this.key = key;
  }
}

/** `text` in at most `bytesMax` bytes of UTF-8, marked if it was cut. */
export function clip(text, bytesMax) {
  if (text.length * 3 <= bytesMax || BufferByteLength(text) <= bytesMax) return text;
  const room = bytesMax - BufferByteLength(CUT);
  const bytes = utf8Bytes(StringSlice(text, 0, room));
  let end = bytes.length < room ? bytes.length : room;
  // A cut within a character would leave half of it.
  while (end > 0 && end < bytes.length && (bytes[end] & 0xc0) === 0x80) end--;
  return Utf8Slice(bytes, 0, end) + CUT;
}

/** What was thrown as a failure; `cause` where the error does not say one itself. */
export function failureOf(error, cause, key) {
  const failure = { cause, message: '' };
  if (error instanceof Refusal) {
    failure.cause = error.refused;
    failure.message = clip(error.message, ERROR_TEXT_BYTES_MAX);
    key = error.key ?? key;
  } else {
    failure.message = clip(messageOf(error), ERROR_TEXT_BYTES_MAX);
    const stack = stackOf(error);
    if (stack !== undefined) failure.stack = clip(stack, ERROR_TEXT_BYTES_MAX);
  }
  if (key !== undefined) failure.key = key;
  return failure;
}

/** One sentence about what was thrown. */
export function messageOf(error) {
  try {
    if (!isNativeError(error)) return `a value that is no Error was thrown: ${inspectText(error, SHALLOW)}`;
    const { name, message } = error;
    const text = typeof message === 'string' ? message : inspectText(message);
    const isPlain = typeof name !== 'string' || name === 'Error' || name === '';
    if (isPlain) return text === '' ? 'an Error without a message was thrown' : text;
    return text === '' ? name : `${name}: ${text}`;
  } catch {
    return 'something was thrown that cannot be described';
  }
}

/** The stack without the frames of Node and the harness; nothing if there is none. */
export function stackOf(error) {
  try {
    if (!isNativeError(error)) return undefined;
    const { stack } = error;
    if (typeof stack !== 'string' || stack === '') return undefined;
    return trim(StringSlice(stack, 0, 4 * ERROR_TEXT_BYTES_MAX));
  } catch {
    return undefined;
  }
}

function trim(stack) {
  let text = '';
  let at = 0;
  while (at <= stack.length) {
    let end = StringIndexOf(stack, '\n', at);
    if (end === -1) end = stack.length;
    const line = StringSlice(stack, at, end);
    at = end + 1;
    if (isForeign(line)) continue;
    text += (text === '' ? '' : '\n') + renumber(line);
  }
  return text;
}

function isForeign(line) {
  if (!StringStartsWith(line, '    at ')) return false;
  if (StringIncludes(line, 'node:internal/') || StringIncludes(line, 'node:async_hooks')) return true;
  if (StringIncludes(line, 'expression:')) return false;
  return StringIncludes(line, HARNESS) && !StringIncludes(line, RUN);
}

/** Lines of an expression count from its own first line. */
function renumber(line) {
  if (!StringStartsWith(line, '    at ')) return line;
  const found = RegExpExec(expressionLine, line);
  if (found === null) return line;
  const number = +found[1] - EXPRESSION_LINES_BEFORE;
  const start = found.index + EXPRESSION_URL.length + 1;
  return StringSlice(line, 0, start) + number + StringSlice(line, start + found[1].length);
}

/** `a, b, c`, or `none`. */
export function listed(names) {
  if (names.length === 0) return 'none';
  return ArrayJoin(names, ', ');
}

