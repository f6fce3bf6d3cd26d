// Finds the handler of a job in the app and calls it with what it expects.

import { Refusal, listed } from './failure.mjs';
import { JSONParse, JSONStringify, ObjectHasOwn, ObjectKeys, apply } from './primordials.mjs';

/** Kinds whose handler is one function of an app or a block. */
const PLAIN = { __proto__: null, sync: 'onSync', drain: 'onDrain', timer: 'onTimer', message: 'onInternalMessage' };

/** Answers what to call for a job: `{ handler, owner, input }`. Throws a `Refusal` that names what there is. */
export function findHandler(app, kind, payload) {
  if (app === null) throw new Refusal('no_such_handler', 'this runtime holds no app');
  const which = payload.handler ?? {};
  const input = payload.input ?? {};
  const block = (which.block ?? null) === null ? null : blockOf(app, which.block);
  const part = block ?? app;
  const name = block === null ? 'the app' : `block \`${which.block}\``;
  const found = locate(part, name, kind, which);
  return { __proto__: null, ...found, input: complete(app, block, kind, which, input) };
}

/** Calls what `findHandler` found; its value may be a promise. */
export const callHandler = ({ handler, owner, input }) => apply(handler, owner, [input]);

function blockOf(app, key) {
  return entry(app.blocks, key, 'block', 'the app');
}

/** An own entry of a record of definitions: `what` it is, one of `whose`. */
function entry(record, key, what, whose) {
  const known = isObject(record) ? record : {};
  if (typeof key === 'string' && ObjectHasOwn(known, key) && isObject(known[key])) return known[key];
  const there = listed(ObjectKeys(known));
  throw new Refusal('no_such_handler', `${whose} has no ${what} \`${key}\`; there are: ${there}`);
}

function locate(part, name, kind, which) {
  if (PLAIN[kind] !== undefined) return handlerOf(part, PLAIN[kind], name, part);
  if (kind === 'event') {
    const input = entry(part.inputs, which.input, 'input', name);
    return handlerOf(input, 'onEvent', `input \`${which.input}\` of ${name}`, part);
  }
  if (kind === 'http') return handlerOf(part.http ?? {}, 'onRequest', `the HTTP endpoint of ${name}`, part);
  if (kind === 'schedule') {
    const schedule = entry(part.schedules, which.schedule, 'schedule', name);
    return handlerOf(schedule, 'onTrigger', `schedule \`${which.schedule}\` of ${name}`, part);
  }
  if (kind === 'suggest') {
    const holder = (which.input ?? null) === null ? part : entry(part.inputs, which.input, 'input', name);
    const field = entry(holder.config, which.field, 'configuration field', name);
    return handlerOf(field, 'suggestValues', `field \`${which.field}\` of ${name}`, part);
  }
  throw new Refusal('unacceptable', `a harness of this version knows no jobs of kind \`${kind}\``);
}

function handlerOf(owner, key, name, part) {
  const handler = owner[key];
  if (typeof handler === 'function') return { handler, owner };
  throw new Refusal('no_such_handler', `${name} has no ${key}; handlers there are: ${listed(handlersOf(part))}`);
}

const isObject = (value) => value !== null && typeof value === 'object';

/** The handlers of an app or a block, by the names their authors gave them. */
function handlersOf(part) {
  const names = [];
  const add = (name, handler) => {
    if (typeof handler === 'function') names.push(name);
  };
  for (const key of Object.values(PLAIN)) add(key, part[key]);
  add('http.onRequest', part.http?.onRequest);
  for (const key of Object.keys(part.inputs ?? {})) add(`inputs.${key}.onEvent`, part.inputs[key]?.onEvent);
  for (const key of Object.keys(part.schedules ?? {})) add(`schedules.${key}.onTrigger`, part.schedules[key]?.onTrigger);
  return names;
}

/** The handler's input with everything there that apps use unguarded, and configuration defaults filled in. */
function complete(app, block, kind, which, input) {
  const whole = { ...input };
  whole.app = { signals: {}, prompts: {}, http: { url: '' }, installationUrl: '', ...input.app };
  whole.app.config = withDefaults(app.config, whole.app.config);
  if (block !== null) {
    whole.block = { ...input.block };
    whole.block.config = withDefaults(block.config, whole.block.config);
  }
  if (kind === 'event') {
    whole.event = { ...input.event };
    whole.event.inputConfig = withDefaults(block?.inputs?.[which.input]?.config, whole.event.inputConfig);
  }
  return whole;
}

/** `values` with the default of each declared field that has no value. */
function withDefaults(fields, values) {
  const filled = { ...values };
  if (!isObject(fields)) return filled;
  const keys = ObjectKeys(fields);
  for (let at = 0; at < keys.length; at++) {
    const key = keys[at];
    const preset = fields[key]?.default;
    // A copy each time: a handler may change what it was given.
    const isMissing = !ObjectHasOwn(filled, key) || filled[key] === undefined;
    if (preset !== undefined && isMissing) filled[key] = JSONParse(JSONStringify(preset));
  }
  return filled;
}
