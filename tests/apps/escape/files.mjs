// Looks for what is not its own: files, sockets and processes of the host, of
// the worker and of other runtimes; and for a place that can be written.

import fs from 'node:fs';
import net from 'node:net';

const outcome = (what) => {
  try {
    what();
    return 'done';
  } catch (error) {
    return error.code ?? error.message;
  }
};

/** What reading `path` gives by its own name, and by every other way to a root. */
globalThis.read = (path) => {
  const roots = ['', '/proc/self/root', '/proc/1/root', '/proc/1/cwd/../../../..', '/sluice/../../../..'];
  const ways = roots.map((root) => root + path);
  return ways.map((way) => outcome(() => (fs.statSync(way).isDirectory() ? fs.readdirSync(way) : fs.readFileSync(way))));
};

/** What connecting to the socket at `path` gives. */
globalThis.dial = (path) => new Promise((resolve) => {
  const socket = net.connect({ path }, () => {
    socket.destroy();
    resolve('connected');
  });
  socket.on('error', (error) => resolve(error.code));
});

/** Processes that it can see. */
globalThis.processes = () => fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));

/** Every mount: where, and whether it can be written. */
globalThis.mounts = () => fs.readFileSync('/proc/self/mountinfo', 'utf8').trim().split('\n').map((line) => {
  const words = line.split(' ');
  return { at: words[4], options: words[5].split(','), kind: words[words.indexOf('-') + 1] };
});

/** Every directory in which a file can be made. */
globalThis.writable = () => {
  const found = [];
  const visit = (path, depth) => {
    const name = `${path}/.escape-${process.pid}`;
    if (outcome(() => fs.writeFileSync(name, '')) === 'done') {
      fs.unlinkSync(name);
      found.push(path);
    }
    if (depth === 0) return;
    let entries = [];
    outcome(() => { entries = fs.readdirSync(path, { withFileTypes: true }); });
    for (const entry of entries) if (entry.isDirectory()) visit(`${path}/${entry.name}`, depth - 1);
  };
  for (const name of fs.readdirSync('/')) if (name !== 'proc' && name !== 'sys') visit(`/${name}`, 5);
  visit('', 0);
  return found;
};

/** Every file of the kernel's that opens for writing, but those of the process itself. */
globalThis.knobs = () => {
  const found = [];
  const visit = (path, depth) => {
    let entries = [];
    outcome(() => { entries = fs.readdirSync(path, { withFileTypes: true }); });
    for (const entry of entries) {
      const inner = `${path}/${entry.name}`;
      if (entry.isDirectory()) {
        if (depth > 0) visit(inner, depth - 1);
      } else if (entry.isFile() && outcome(() => fs.closeSync(fs.openSync(inner, 'r+'))) === 'done') found.push(inner);
    }
  };
  for (const path of ['/proc/sys', '/sys']) visit(path, 5);
  for (const path of ['/proc/sysrq-trigger', '/proc/kcore', '/proc/kmsg', '/proc/1/oom_score_adj']) {
    if (!path.endsWith('adj') && outcome(() => fs.closeSync(fs.openSync(path, 'r+'))) === 'done') found.push(path);
  }
  return found;
};

/** Fills what can be written, and says how many bytes it took and what ended it. */
globalThis.fill = (directory) => {
  const chunk = Buffer.alloc(1 << 20, 1);
  const name = `${directory}/fill`;
  const file = fs.openSync(name, 'w');
  let bytes = 0;
  let end = 'endless';
  try {
    while (bytes < 1 << 30) bytes += fs.writeSync(file, chunk);
  } catch (error) {
    end = error.code;
  }
  fs.closeSync(file);
  fs.unlinkSync(name);
  return { bytes, end };
};

/** Runs a program and loads a library that it brings along. */
globalThis.execute = () => {
  const { spawnSync } = process.getBuiltinModule('node:child_process');
  fs.writeFileSync('/tmp/own', '#!/proc/self/exe\n', { mode: 0o755 });
  const program = spawnSync('/tmp/own').error?.code ?? 'done';
  const library = process.report.getReport().sharedObjects.find((path) => /libc\.so/.test(path));
  fs.copyFileSync(library, '/tmp/own.node');
  const loaded = outcome(() => process.dlopen({ exports: {} }, '/tmp/own.node'));
  return { program, loaded: /self-register/.test(loaded) ? 'done' : loaded };
};

export const app = { name: 'Files', blocks: {} };
