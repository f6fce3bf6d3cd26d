// Bundles apps the way app authors do: one ES module for Node 22 with all
// dependencies inside, the SDK left to the runtime, and `require` and friends
// defined for dependencies that were written for CommonJS.
//
//   npm run build -- --outdir=DIR NAME…    NAME/main.ts into DIR/NAME.mjs

import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const OUTDIR = '--outdir=';
const words = process.argv.slice(2);
const outdir = words.find((word) => word.startsWith(OUTDIR))?.slice(OUTDIR.length);
const names = words.filter((word) => !word.startsWith('--'));
if (outdir === undefined || names.length === 0) throw new Error('usage: build.mjs --outdir=DIR NAME…');

await build({
  absWorkingDir: fileURLToPath(new URL('.', import.meta.url)),
  entryPoints: names.map((name) => ({ in: `${name}/main.ts`, out: name })),
  outdir,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  platform: 'node',
  target: 'node22',
  format: 'esm',
  external: ['@slflows/sdk/*', '*.node'],
  banner: {
    js: [
      'import { createRequire as __createRequire } from "node:module";',
      'var require = __createRequire(import.meta.url);',
      'var __dirname = import.meta.dirname;',
      'var __filename = import.meta.filename;',
    ].join('\n'),
  },
  logLevel: 'warning',
});
