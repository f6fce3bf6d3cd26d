// Bundles one file: `node bundle.mjs app|ui ENTRY OUTFILE`.

import { resolve } from 'node:path';

import { build } from 'esbuild';

import { APP, UI } from './options.mjs';

const [kind, entry, outfile] = process.argv.slice(2);
try {
  await build({ ...(kind === 'ui' ? UI : APP), entryPoints: [resolve(entry)], outfile: resolve(outfile) });
} catch {
  // The bundler has said what is wrong.
  process.exitCode = 1;
}
