// Invocations: which are open, what belongs to each, and how each ends.
//
//              ┌────────────── abort ───────────────┐
//   begin ─▶ running ── settle ─▶ flushing ── all calls answered ─▶ ended
//
// Promises kept here: an invocation ends exactly once, with `done` or `failed`;
// never before each SDK call it made was answered, unless it was aborted; and
// nothing is sent in its name afterwards. Its log is bounded by what `invoke`
// allowed, the rest is counted.
//
// What the app can lay hands on is a token, a frozen object without properties.
// Invocations themselves never leave the harness.

import { Refusal, clip, failureOf, messageOf } from './failure.mjs';
import {
  BufferByteLength, JSONParse, JSONStringify, MapDelete, MapForEach, MapGet, MapHas, MapSet, MapSize, NativeMap,
  NativePromise, ObjectFreeze, StringIndexOf, StringSlice, Utf8Slice, settled, setImmediateOf,
  utf8Bytes,
} from './primordials.mjs';

/** Most SDK calls of one invocation that may be unanswered: CALLS_IN_FLIGHT_MAX of the contract. */
const CALLS_IN_FLIGHT_MAX = 1000;
/** The most that the arguments of those may hold together, in bytes: what the worker must keep for them. */
const CALLS_IN_FLIGHT_BYTES_MAX = 64 * 1024 * 1024;
/** The largest arguments of one SDK call, in bytes of JSON, so that its message stays below the wire's limit. */
const ARGS_BYTES_MAX = 4 * 1024 * 1024;
/** The largest result, in bytes of JSON: RESULT_BYTES_MAX of the contract. */
const RESULT_BYTES_MAX = 4 * 1024 * 1024;
/** The longest line of log, in bytes: LOG_LINE_BYTES_MAX of the contract. */
const LOG_LINE_BYTES_MAX = 8 * 1024;
/** What a line costs at least, in bytes, so that empty lines are not free. */
const LOG_LINE_BYTES_MIN = 16;
/** Log is dropped, and counted, while the worker has this much unread, in bytes. */
const LOG_WAITING_BYTES_MAX = 4 * 1024 * 1024;
/** What is logged while the bundle is loaded is kept for the first invocation up to this, in UTF-16 units. */
const EARLY_LOG_UNITS_MAX = 64 * 1024;
/** What belongs to no open invocation goes to the container's log, this much in the process's life, in bytes. */
const STRAY_LOG_BYTES_MAX = 256 * 1024;

const noop = () => {};
const NO_CALLS = new Map();

/** The invocation of a token; only this module can tell. */
let invocationOf;
class Token {
  #invocation;

  constructor(invocation) {
    this.#invocation = invocation;
    ObjectFreeze(this);
  }

  static {
    invocationOf = (token) => (typeof token === 'object' && #invocation in token ? token.#invocation : undefined);
  }
}

/** The open invocations. `wire` sends, `storage` knows who is running, `complain` writes a line for nobody. */
export function createInvocations(wire, storage, complain) {
  const open = new Map();
  // What was logged while the bundle was loaded goes to the first invocation.
  let loading = true;
  let early = '';
  let strayLeft = STRAY_LOG_BYTES_MAX;

  function current() {
    const token = storage.current();
    return token === undefined ? undefined : invocationOf(token);
  }

  function begin({ invocation, kind, log_bytes_max }) {
    const begun = {
      __proto__: null, number: invocation, kind, token: null, calls: NO_CALLS, callsMade: 0, callBytes: 0, live: true, outcome: null,
      checking: false, logLeft: log_bytes_max, logDropped: 0, indent: '', info: '', error: '',
    };
    begun.token = new Token(begun);
    MapSet(open, invocation, begun);
    if (early !== '') {
      const text = early;
      early = '';
      log(begun, 'info', text);
    }
    return begun;
  }

  /** Runs `enter` so that everything it causes is known to belong to the invocation. */
  const run = (invocation, enter) => storage.run(invocation.token, enter);

  // === Ending ===

  /** The handler is through: with JSON text, or with what it threw. The first word counts, but a failure outdoes a result. */
  function settle(invocation, outcome) {
    if (!invocation.live) return;
    if (invocation.outcome === null || (outcome.failure !== undefined && invocation.outcome.failure === undefined)) {
      invocation.outcome = outcome;
    }
    // These make no calls, so there is nothing to wait for.
    if (invocation.kind === 'evaluate' || invocation.kind === 'describe') finishNow(invocation);
    else check(invocation);
  }

  const succeed = (invocation, json) => {
    const bytes = BufferByteLength(json);
    if (bytes > RESULT_BYTES_MAX) fail(invocation, tooLarge(bytes));
    else settle(invocation, { __proto__: null, json });
  };

  const fail = (invocation, error, cause = 'threw', key = undefined) =>
    settle(invocation, { __proto__: null, failure: failureOf(error, cause, key) });

  /** Ends the invocation now if nothing can follow any more. */
  function finishNow(invocation) {
    if (invocation.live && invocation.outcome !== null && MapSize(invocation.calls) === 0) finish(invocation);
  }

  /**
   * Ends the invocation when all its calls are answered. Looked at one turn of
   * the event loop later, because code that nobody awaits may be about to make
   * another call, or to fail.
   */
  function check(invocation) {
    if (invocation.checking || MapSize(invocation.calls) !== 0) return;
    invocation.checking = true;
    setImmediateOf(() => {
      invocation.checking = false;
      finishNow(invocation);
    });
  }

  function finish(invocation) {
    flushOutput(invocation);
    invocation.live = false;
    MapDelete(open, invocation.number);
    const { number, logDropped, outcome } = invocation;
    if (outcome.failure === undefined) {
      const result = utf8Bytes(outcome.json);
      wire.send({ done: { invocation: number, log_bytes_dropped: logDropped, result } });
    } else {
      wire.send({ failed: { invocation: number, log_bytes_dropped: logDropped, failure: outcome.failure } });
    }
    invocation.outcome = null;
  }

  /** Ends an invocation at once: its calls reject, whatever it still does is refused. */
  function abort(number) {
    const invocation = MapGet(open, number);
    if (invocation === undefined) return;
    const error = new Error('the invocation was aborted');
    invocation.outcome = { __proto__: null, failure: failureOf(new Refusal('threw', error.message)) };
    const { calls } = invocation;
    invocation.calls = NO_CALLS;
    finish(invocation);
    MapForEach(calls, ({ promise, reject }) => {
      // Nobody may be waiting for it; that is no failure of anything any more.
      settled(promise, undefined, noop);
      reject(error);
    });
  }

  // === SDK calls ===

  /** An SDK call of whoever is running. Answers a promise; never throws. */
  function call(method, args) {
    const invocation = current();
    const refusal = refusalOf(invocation);
    if (refusal !== undefined) {
      if (invocation === undefined || !invocation.live) log(undefined, 'warn', `${method} ${refusal}`);
      return rejected(new Error(`${method} ${refusal}`));
    }
    let json;
    try {
      json = utf8Bytes(JSONStringify(args));
    } catch (error) {
      return rejected(new TypeError(`${method} was given something that JSON cannot carry: ${messageOf(error)}`));
    }
    if (json.length > ARGS_BYTES_MAX) {
      const sizes = `${json.length} bytes of JSON, over the limit of ${ARGS_BYTES_MAX}`;
      return rejected(new RangeError(`${method} was given ${sizes}`));
    }
    if (invocation.callBytes + json.length > CALLS_IN_FLIGHT_BYTES_MAX) {
      const sizes = `more than ${CALLS_IN_FLIGHT_BYTES_MAX} bytes in calls of this invocation are unanswered`;
      return rejected(new Error(`${method} cannot be called now: ${sizes}; await some of them first`));
    }
    invocation.callBytes += json.length;
    const number = ++invocation.callsMade;
    const pending = { __proto__: null, bytes: json.length, promise: null, resolve: null, reject: null };
    pending.promise = new NativePromise((resolve, reject) => {
      pending.resolve = resolve;
      pending.reject = reject;
    });
    if (invocation.calls === NO_CALLS) invocation.calls = new NativeMap();
    MapSet(invocation.calls, number, pending);
    wire.send({ call: { invocation: invocation.number, call: number, method, args: json } });
    return pending.promise;
  }

  /** The worker's answer to a call. */
  function called({ invocation: number, call: callNumber, answer }) {
    const invocation = MapGet(open, number);
    const pending = invocation === undefined ? undefined : MapGet(invocation.calls, callNumber);
    if (pending === undefined) return;
    MapDelete(invocation.calls, callNumber);
    invocation.callBytes -= pending.bytes;
    let error;
    if (answer.value !== undefined) {
      const { json } = answer.value;
      try {
        const value = JSONParse(Utf8Slice(json, 0, json.length));
        pending.resolve(value === null ? undefined : value);
      } catch (problem) {
        error = new Error(`the answer is not JSON: ${messageOf(problem)}`);
      }
    } else error = new Error(answer.error?.message ?? 'the call was refused without a reason');
    // Newer Nodes say of a rejection that nobody handles where it was made, not who would have awaited it.
    if (error !== undefined) run(invocation, () => pending.reject(error));
    if (invocation.outcome !== null) check(invocation);
  }

  // === Logs ===

  /** Logs for an invocation, or for nobody (`undefined`, or one that has ended). */
  function log(invocation, level, text) {
    const bytes = BufferByteLength(text);
    if (invocation === undefined || !invocation.live) {
      if (loading) {
        if (early.length + text.length < EARLY_LOG_UNITS_MAX) early += (early === '' ? '' : '\n') + text;
        return;
      }
      if (bytes > strayLeft) return;
      strayLeft -= bytes;
      complain(`${level}: ${clip(text, LOG_LINE_BYTES_MAX)}`);
      return;
    }
    if (invocation.logLeft <= 0 || wire.waiting() > LOG_WAITING_BYTES_MAX) {
      invocation.logDropped += bytes;
      return;
    }
    const line = clip(text, LOG_LINE_BYTES_MAX);
    const kept = line === text ? bytes : BufferByteLength(line);
    if (kept > invocation.logLeft) {
      invocation.logLeft = 0;
      invocation.logDropped += bytes;
      return;
    }
    if (kept < bytes) invocation.logDropped += bytes - kept;
    invocation.logLeft -= kept < LOG_LINE_BYTES_MIN ? LOG_LINE_BYTES_MIN : kept;
    wire.send({ log: { invocation: invocation.number, level, text: line } });
  }

  /** Whether anything that is logged now can only be counted. */
  const logIsFull = (invocation) => invocation !== undefined && invocation.live && invocation.logLeft <= 0;

  function countDropped(invocation, bytes) {
    invocation.logDropped += bytes;
  }

  /** What was written to standard output or error: whole lines are logged, the rest waits for its end. */
  function output(level, text) {
    const invocation = current();
    if (invocation === undefined || !invocation.live) return log(undefined, level, text);
    if (invocation.logLeft <= 0) return countDropped(invocation, BufferByteLength(text));
    let rest = invocation[level] + text;
    let end = StringIndexOf(rest, '\n');
    while (end !== -1) {
      log(invocation, level, StringSlice(rest, 0, end));
      rest = StringSlice(rest, end + 1);
      end = StringIndexOf(rest, '\n');
    }
    if (rest.length > LOG_LINE_BYTES_MAX) {
      log(invocation, level, rest);
      rest = '';
    }
    invocation[level] = rest;
  }

  function flushOutput(invocation) {
    if (invocation.info !== '') log(invocation, 'info', invocation.info);
    if (invocation.error !== '') log(invocation, 'error', invocation.error);
  }

  /** The bundle is loaded, or cannot be: then what it logged is nobody's. */
  function loaded(worked) {
    loading = false;
    if (worked || early === '') return;
    const text = early;
    early = '';
    log(undefined, 'info', text);
  }

  /** An error that nobody caught: it fails the invocation it belongs to, and nothing else. */
  function stray(error) {
    const invocation = current();
    if (invocation !== undefined && invocation.live) fail(invocation, error);
    else log(undefined, 'error', `an error that nobody caught, after its invocation or outside of any: ${messageOf(error)}`);
  }

  return {
    __proto__: null, begin, run, current, succeed, fail, abort, call, called, log, logIsFull, countDropped, output,
    loaded, stray, has: (number) => MapHas(open, number),
  };
}

const rejected = (error) => new NativePromise((_, reject) => reject(error));

/** Why an SDK call cannot be made, if so. */
function refusalOf(invocation) {
  if (invocation === undefined) return 'was called outside of an invocation, where it belongs to no block or app';
  if (!invocation.live) return 'was called after its invocation had ended; await it, or what leads to it, in the handler';
  const { kind, calls } = invocation;
  if (kind === 'evaluate' || kind === 'describe') return `cannot be called while a runtime does ${kind}`;
  if (MapSize(calls) < CALLS_IN_FLIGHT_MAX) return undefined;
  return `cannot be called now: ${CALLS_IN_FLIGHT_MAX} calls of this invocation are unanswered; await some of them first`;
}

function tooLarge(bytes) {
  return new Refusal('result_too_large', `the result is ${bytes} bytes of JSON, over the limit of ${RESULT_BYTES_MAX}`);
}

/** The JSON of a result; a `Refusal` that names why where JSON cannot carry it. */
export function toJson(value, what, key) {
  if (value === undefined) return 'null';
  let json;
  try {
    json = JSONStringify(value);
  } catch (error) {
    const text = messageOf(error);
    if (StringIndexOf(text, 'Invalid string length') !== -1) {
      throw new Refusal('result_too_large', `${what} is over the limit of ${RESULT_BYTES_MAX} bytes of JSON`, key);
    }
    throw new Refusal('result_not_json', `${what} is something JSON cannot carry: ${firstLine(text)}`, key);
  }
  if (json === undefined) throw new Refusal('result_not_json', `${what} is a ${typeof value}, which JSON cannot carry`, key);
  if (json.length > RESULT_BYTES_MAX) {
    throw new Refusal('result_too_large', `${what} is more than ${RESULT_BYTES_MAX} bytes of JSON`, key);
  }
  return json;
}

function firstLine(text) {
  const end = StringIndexOf(text, '\n');
  return end === -1 ? text : StringSlice(text, 0, end);
}
