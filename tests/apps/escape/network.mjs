// Tries to reach what it must not, by every kind of socket Node has.

import dgram from 'node:dgram';
import dns from 'node:dns/promises';
import http from 'node:http';
import net from 'node:net';

const PATIENCE_MS = 1500;

/** `connected`, `timeout`, or the error's code. */
globalThis.connect = (host, port) => new Promise((resolve) => {
  const socket = net.connect({ host, port, timeout: PATIENCE_MS }, () => done('connected'));
  const done = (what) => {
    socket.destroy();
    resolve(what);
  };
  socket.on('error', (error) => done(error.code)).on('timeout', () => done('timeout'));
});

/** All of `[host, port]`, at once. */
globalThis.connectAll = (targets) => Promise.all(targets.map(([host, port]) => connect(host, port)));

/** Sends datagrams until one is refused, or for as long as is patient. */
globalThis.datagram = (host, port) => new Promise((resolve) => {
  const socket = dgram.createSocket('udp4');
  const done = (what) => {
    clearInterval(again);
    clearTimeout(enough);
    socket.close();
    resolve(what);
  };
  const send = () => socket.send('x', (error) => error && done(error.code));
  const enough = setTimeout(() => done('sent'), PATIENCE_MS);
  const again = setInterval(send, 100);
  socket.on('error', (error) => done(error.code));
  socket.connect(port, host, (error) => (error ? done(error.code) : send()));
});

/** What the metadata service of a cloud would hand out. */
globalThis.metadata = (url) => new Promise((resolve) => {
  http.get(url, { timeout: PATIENCE_MS }, () => resolve('answered'))
    .on('error', (error) => resolve(error.code))
    .on('timeout', function () { this.destroy(); resolve('timeout'); });
});

/** Whether anybody answers a query; a name that does not exist is an answer. */
globalThis.resolve = async (name) => {
  const resolver = new dns.Resolver({ timeout: PATIENCE_MS, tries: 1 });
  try {
    await resolver.resolve4(name);
    return 'answered';
  } catch (error) {
    return error.code;
  }
};

export const app = { name: 'Network', blocks: {} };
