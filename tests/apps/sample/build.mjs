// Bundles the app the way app authors do: one ES module for Node 22 with all
// dependencies inside, the SDK left to the runtime, and `require` and friends
// defined for dependencies that were written for CommonJS.
//
// `npm run build [-- --outfile=FILE]`; target/apps/sample.mjs otherwise.

import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const asked = process.argv.find((word) => word.startsWith('--outfile='));
const outfile = asked?.slice('--outfile='.length) ?? fileURLToPath(new URL('../../../target/apps/sample.mjs', import.meta.url));

await build({
  absWorkingDir: fileURLToPath(new URL('.', import.meta.url)),
  entryPoints: ['main.ts'],
  outfile,
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
