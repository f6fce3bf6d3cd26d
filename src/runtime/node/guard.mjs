// What of the process an app may not take over by accident, and what it says when it ends.

import { ObjectDefineProperty, apply } from './primordials.mjs';

/** Closes the simple ways to the socket, and makes an exit by the app's own doing explain itself. */
export function guardProcess(wire, invocations) {
  fix('_getActiveHandles', without(process._getActiveHandles, wire));
  fix('_getActiveRequests', () => []);

  const { exit, abort } = process;
  let exiting = false;
  const say = (what) => {
    if (exiting) return;
    exiting = true;
    const invocation = invocations.current();
    invocations.log(invocation, 'error', `${what} was called by the app, which ends its runtime`);
    wire.flush();
  };
  fix('exit', (code) => {
    say(`process.exit(${code === undefined ? '' : String(code)})`);
    apply(exit, process, code === undefined ? [] : [code]);
  });
  fix('abort', () => {
    say('process.abort()');
    apply(abort, process, []);
  });
  return { exit: (code) => apply(exit, process, [code]) };
}

/** Errors nobody caught go to `stray`; the process stays. An app cannot take this away. */
export function catchStrayErrors(stray) {
  process.setUncaughtExceptionCaptureCallback(stray);
  fix('setUncaughtExceptionCaptureCallback', () => {
    throw new Error('uncaught exceptions are the runtime\'s: listen to unhandledRejection, or catch them where they occur');
  });
}

function without(list, wire) {
  return () => {
    const handles = apply(list, process, []);
    let others = [];
    for (let at = 0; at < handles.length; at++) if (!wire.is(handles[at])) others = others.concat([handles[at]]);
    return others;
  };
}

function fix(name, value) {
  ObjectDefineProperty(process, name, { __proto__: null, value, writable: false, configurable: false, enumerable: true });
}
