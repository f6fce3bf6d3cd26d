// Loads an app's bundle and says in one sentence what is wrong with it.

import fs from 'node:fs';
import { pathToFileURL } from 'node:url';

import { Refusal, messageOf } from './failure.mjs';
import { NativePromise, RegExpExec, StringIndexOf, StringSlice, settled } from './primordials.mjs';

const position = /app[^\n]*\.m?js:(\d+)\n([^\n]*)\n( *\^)/;

/** Imports the bundle at `path`; calls `done` with the app, or `failed` with what to say. */
export function loadApp(path, done, failed) {
  if (!fs.existsSync(path)) {
    failed(new Refusal('bundle_unavailable', `there is no bundle at ${path}`));
    return;
  }
  const url = pathToFileURL(path).href;
  const loaded = (async () => appOf(await import(url)))();
  settled(loaded, done, (error) => failed(explained(error, url)));
}

function appOf(module) {
  const app = module.app ?? module.default;
  if (app === undefined || app === null) {
    throw new Refusal('no_such_handler', 'the bundle exports no app: export it as `app`, or as the default');
  }
  if (typeof app !== 'object' || typeof (app.blocks ?? {}) !== 'object') {
    throw new Refusal('no_such_handler', 'what the bundle exports as its app is not one: give defineApp an object with blocks');
  }
  return app;
}

/** Errors of Node's module loader say where, but not in words for the author of an app. */
function explained(error, url) {
  const code = error?.code;
  const text = messageOf(error);
  if (error instanceof SyntaxError) return new Refusal('syntax', `the bundle does not parse: ${text}${place(error, url)}`);
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'ERR_PACKAGE_PATH_NOT_EXPORTED') {
    return new Refusal('threw', `the bundle imports something that is not there; only @slflows/sdk/v1 and Node's own modules are: ${text}`);
  }
  return error;
}

/** ` (line 3, column 7)`, where Node tells. */
function place(error, url) {
  const stack = typeof error.stack === 'string' ? error.stack : '';
  const at = StringIndexOf(stack, url);
  const found = at === -1 ? null : RegExpExec(position, StringSlice(stack, at));
  return found === null ? '' : ` (line ${found[1]}, column ${found[3].length})`;
}
