// Loads an app's bundle and says in one sentence what is wrong with it.

import fs from 'node:fs';
import { pathToFileURL } from 'node:url';

import { Refusal, messageOf } from './failure.mjs';
import { RegExpExec, builtin, settled } from './primordials.mjs';

/** How `node --check` says where: file and line, the line, a caret below. */
const position = /\.m?js:(\d+)\n[^\n]*\n(?:([ \t]*)\^)?/;
/** How long that may take, in milliseconds; without it the place is just not named. */
const CHECK_MS_MAX = 5000;
const { execPath } = process;

/** Imports the bundle at `path`; calls `done` with the app, or `failed` with what to say. */
export function loadApp(path, done, failed) {
  if (!fs.existsSync(path)) {
    failed(new Refusal('bundle_unavailable', `there is no bundle at ${path}`));
    return;
  }
  const url = pathToFileURL(path).href;
  const loaded = (async () => appOf(await import(url)))();
  settled(loaded, done, (error) => {
    if (!(error instanceof SyntaxError)) return failed(explained(error));
    // The error of an import does not say where in the bundle it is; Node's own check does.
    const { execFile } = builtin('node:child_process');
    execFile(execPath, ['--check', path], { timeout: CHECK_MS_MAX, env: {} }, (_, __, stderr) => {
      failed(new Refusal('syntax', `the bundle does not parse: ${messageOf(error)}${place(stderr)}`));
    });
  });
}

function appOf(module) {
  const app = module.app ?? module.default;
  if (app === undefined || app === null) {
    throw new Refusal('no_such_handler', 'the bundle exports no app: export it as `app`, or as the default');
  }
  if (typeof app !== 'object' || typeof (app.blocks ?? {}) !== 'object') {
    throw new Refusal('no_such_handler', 'what the bundle exports as its app is none: give defineApp an object');
  }
  return app;
}

/** Errors of Node's module loader say where, but not in words for the author of an app. */
function explained(error) {
  const code = error?.code;
  if (code === 'ERR_MODULE_NOT_FOUND' || code === 'ERR_PACKAGE_PATH_NOT_EXPORTED') {
    const what = 'the bundle imports something that is not there; only @slflows/sdk/v1 and Node\'s own modules are';
    return new Refusal('threw', `${what}: ${messageOf(error)}`);
  }
  return error;
}

/** ` (line 3, column 7)`, where Node tells. */
function place(text) {
  const found = typeof text === 'string' ? RegExpExec(position, text) : null;
  if (found === null) return '';
  return found[2] === undefined ? ` (line ${found[1]})` : ` (line ${found[1]}, column ${found[2].length + 1})`;
}
