// How apps are bundled, for `sluice app build` and for the apps of the tests:
// as app authors do it.

// One ES module for Node 22 with all dependencies inside, the SDK left to the
// runtime, and `require` and friends defined for dependencies that were written
// for CommonJS.
export const APP = {
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
};

// One ES module for browsers.
export const UI = {
  bundle: true,
  platform: 'browser',
  target: 'es2020',
  format: 'esm',
  minify: true,
  logLevel: 'warning',
};
