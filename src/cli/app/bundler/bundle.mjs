// Bundles an app the way app authors do: `node bundle.mjs app|ui ENTRY OUTFILE`.
//
// The app is one ES module for Node 22 with all dependencies inside, the SDK
// left to the runtime, and `require` and friends defined for dependencies that
// were written for CommonJS. A UI is one ES module for browsers.

import { resolve } from 'node:path';

import { build } from 'esbuild';

const KINDS = {
  app: {
    platform: 'node',
    target: 'node22',
    external: ['@slflows/sdk/*', '*.node'],
    banner: {
      js: [
        'import { createRequire as __createRequire } from "node:module";',
        'var require = __createRequire(import.meta.url);',
        'var __dirname = import.meta.dirname;',
        'var __filename = import.meta.filename;',
      ].join('\n'),
    },
  },
  ui: { platform: 'browser', target: 'es2020', minify: true },
};

const [kind, entry, outfile] = process.argv.slice(2);
try {
  await build({
    ...KINDS[kind],
    bundle: true,
    format: 'esm',
    entryPoints: [resolve(entry)],
    outfile: resolve(outfile),
    logLevel: 'warning',
  });
} catch {
  // The bundler has said what is wrong.
  process.exitCode = 1;
}
