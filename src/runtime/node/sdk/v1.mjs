// `@slflows/sdk/v1`: what apps import. Nothing here knows which invocation it
// serves; the harness finds that out by what caused the call.
//
// Each function passes its arguments on as they are, as a JSON array; the
// gateway gives them their meaning. None is added: trailing arguments that are
// undefined are left out. Only the scope of `timers.block` and `timers.app` and
// the bytes of an HTTP response need a form of their own.

import { call } from '../../../port.mjs';
import {
  ArrayIsArray, Base64Slice, BufferFrom, ObjectFreeze, isAnyArrayBuffer, isUint8Array,
} from '../../../primordials.mjs';

/** A function that passes up to `most` arguments on. */
const method = (name, most) => (...given) => {
  let length = given.length < most ? given.length : most;
  while (length > 0 && given[length - 1] === undefined) length--;
  given.length = length;
  return call(name, given);
};

/** The definition of an app, as it is. */
export function defineApp(schema) {
  if (schema === null || typeof schema !== 'object') throw new TypeError('defineApp takes an object');
  return schema;
}

export const events = ObjectFreeze({
  emit: method('events.emit', 2),
  createPending: method('events.createPending', 1),
  updatePending: method('events.updatePending', 2),
  completePending: method('events.completePending', 1),
  cancelPending: method('events.cancelPending', 2),
});

const store = (scope) => {
  const get = method(`kv.${scope}.get`, 1);
  const getMany = method(`kv.${scope}.getMany`, 1);
  const list = method(`kv.${scope}.list`, 1);
  return ObjectFreeze({
    // A key that does not exist is a pair without a value, never nothing.
    get: async (key) => (await get(key)) ?? { key },
    getMany: async (keys) => {
      const pairs = (await getMany(keys)) ?? [];
      if (!ArrayIsArray(keys)) return pairs;
      for (let at = 0; at < keys.length; at++) pairs[at] ??= { key: keys[at] };
      return pairs;
    },
    set: method(`kv.${scope}.set`, 1),
    setMany: method(`kv.${scope}.setMany`, 1),
    list: async (options) => (await list(options)) ?? { pairs: [] },
    delete: method(`kv.${scope}.delete`, 1),
    releaseLock: method(`kv.${scope}.releaseLock`, 1),
  });
};

export const kv = ObjectFreeze({ app: store('app'), block: store('block') });

const timersOf = (scope) => {
  const scoped = (options) => ({ ...options, scope });
  return {
    set: (seconds, options) => call('timers.set', [seconds, scoped(options)]),
    unset: (id) => call('timers.unset', [id, scoped()]),
  };
};

/** Without a scope, a timer is the block's inside a block's handler, else the app's. */
export const timers = ObjectFreeze({
  set: method('timers.set', 2),
  unset: method('timers.unset', 1),
  block: ObjectFreeze(timersOf('block')),
  app: ObjectFreeze(timersOf('app')),
});

export const messaging = ObjectFreeze({
  sendToBlocks: method('messaging.sendToBlocks', 1),
  sendToApp: method('messaging.sendToApp', 1),
});

export const lifecycle = ObjectFreeze({
  sync: method('lifecycle.sync', 0),
  proceed: method('lifecycle.proceed', 0),
  prompt: ObjectFreeze({
    create: method('lifecycle.prompt.create', 3),
    delete: method('lifecycle.prompt.delete', 1),
  }),
});

export const blocks = ObjectFreeze({ list: method('blocks.list', 1) });

/** Bytes travel as `{"$bytes": base64}`. */
function carried(body) {
  if (isUint8Array(body)) return { $bytes: Base64Slice(body, 0, body.length) };
  if (isAnyArrayBuffer(body)) return carried(BufferFrom(body));
  return body;
}

export const http = ObjectFreeze({
  respond: (requestId, response) =>
    call('http.respond', [requestId, response === undefined ? {} : { ...response, body: carried(response.body) }]),
});

export const ui = ObjectFreeze({
  widget: ObjectFreeze({ set: method('ui.widget.set', 1) }),
});
