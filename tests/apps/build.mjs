// Bundles the apps of the tests the way `sluice app build` does; compose/apps.sh
// puts its options beside this file.
//
//   npm run build -- --outdir=DIR NAME…    NAME/main.ts into DIR/NAME.mjs

import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { APP } from './options.mjs';

const OUTDIR = '--outdir=';
const words = process.argv.slice(2);
const outdir = words.find((word) => word.startsWith(OUTDIR))?.slice(OUTDIR.length);
const names = words.filter((word) => !word.startsWith('--'));
if (outdir === undefined || names.length === 0) throw new Error('usage: build.mjs --outdir=DIR NAME…');

await build({
  ...APP,
  absWorkingDir: fileURLToPath(new URL('.', import.meta.url)),
  entryPoints: names.map((name) => ({ in: `${name}/main.ts`, out: name })),
  outdir,
  outExtension: { '.js': '.mjs' },
});
