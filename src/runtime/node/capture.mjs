// Everything user code prints becomes its invocation's log: the console, and
// what is written to standard output and error.
//
// Once an invocation's log is full its lines are only counted, without being
// formatted: a million of them cost little and hold no memory.

import { BufferByteLength, apply, formatText, inspectText } from './primordials.mjs';

const INDENT = '  ';

/** Takes over `console`, `process.stdout` and `process.stderr`. */
export function captureOutput(invocations) {
  const say = (level) => (...args) => {
    const invocation = invocations.current();
    if (invocations.logIsFull(invocation)) return invocations.countDropped(invocation, roughBytes(args));
    const text = apply(formatText, undefined, args);
    invocations.log(invocation, level, invocation === undefined ? text : invocation.indent + text);
  };
  const group = (...args) => {
    if (args.length > 0) apply(console.log, console, args);
    const invocation = invocations.current();
    if (invocation !== undefined && invocation.indent.length < 40) invocation.indent += INDENT;
  };
  const groupEnd = () => {
    const invocation = invocations.current();
    if (invocation !== undefined) invocation.indent = invocation.indent.slice(INDENT.length);
  };
  const error = say('error');
  Object.assign(console, {
    log: say('info'),
    info: say('info'),
    debug: say('debug'),
    warn: say('warn'),
    error,
    trace(...args) {
      const here = { name: 'Trace', message: apply(formatText, undefined, args) };
      Error.captureStackTrace(here, console.trace);
      error(here.stack);
    },
    dir: (value, options) => console.log(inspectText(value, { customInspect: false, ...options })),
    dirxml: (...args) => apply(console.log, console, args),
    group,
    groupCollapsed: group,
    groupEnd,
    clear() {},
  });
  captureStream(process.stdout, 'info', invocations);
  captureStream(process.stderr, 'error', invocations);
}

function captureStream(stream, level, invocations) {
  const write = (chunk, encoding, done) => {
    const text = typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8');
    invocations.output(level, text);
    const callback = typeof encoding === 'function' ? encoding : done;
    if (typeof callback === 'function') process.nextTick(callback);
    return true;
  };
  Object.defineProperty(stream, 'write', { value: write, writable: true, configurable: true });
}

/** About how many bytes a line would have had: strings exactly, anything else by a guess. */
function roughBytes(args) {
  let bytes = 0;
  for (let at = 0; at < args.length; at++) bytes += typeof args[at] === 'string' ? BufferByteLength(args[at]) : 16;
  return bytes;
}
