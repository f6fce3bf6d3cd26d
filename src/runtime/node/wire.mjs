// The socket to the worker: frames out, batched per tick; frames in, one at a time.
//
// Owns the only reference to the socket, which it hands to nobody. Knows
// nothing of what the messages mean.

import net from 'node:net';

import { createWriter, decode } from './codec.mjs';
import { BufferAlloc, BytesBuffer, BytesOffset, BytesSet, nextTick, ownMethods } from './primordials.mjs';

/** The largest message, either way, in bytes, without its length: HARNESS_MESSAGE_BYTES_MAX of the contract. */
export const MESSAGE_BYTES_MAX = 8 * 1024 * 1024;
/** How much is gathered before it is written without waiting for the end of the tick, in bytes. */
const BATCH_BYTES = 64 * 1024;
/** How much is read at once, in bytes. */
const READ_BYTES = 256 * 1024;
const Bytes = Uint8Array;

/**
 * Connects to the worker.
 *
 * `onMessage` is called with each message, `onEnd` once when the worker is gone
 * or has said something that cannot be read (then with an error).
 */
export function connect(path, { onReady, onMessage, onEnd }) {
  const writer = createWriter(BATCH_BYTES);
  const receive = createReceiver(onMessage);
  let scheduled = false;
  let ended = false;

  function end(error) {
    if (ended) return;
    ended = true;
    onEnd(error);
  }

  const socket = net.connect({
    path,
    onread: {
      buffer: BufferAlloc(READ_BYTES),
      callback(bytes, chunk) {
        try {
          receive(chunk, bytes);
        } catch (error) {
          end(error);
        }
        return !ended;
      },
    },
  });
  socket.on('error', end);
  socket.on('close', () => end());
  socket.on('end', () => end());
  socket.on('connect', () => {
    ownMethods(socket);
    ownMethods(socket._handle);
    onReady();
  });

  function flush() {
    scheduled = false;
    if (writer.bytes() !== 0 && !ended) socket.write(writer.take());
  }

  return {
    __proto__: null,
    /** Queues a message; it is written at the end of this tick at the latest. Throws if it is over the limit. */
    send(message) {
      writer.frame(message, MESSAGE_BYTES_MAX);
      if (writer.bytes() >= BATCH_BYTES) flush();
      else if (!scheduled) {
        scheduled = true;
        nextTick(flush);
      }
    },
    /** Hands everything queued to the kernel, or to libuv where the kernel takes no more. */
    flush,
    /** Bytes that the worker has not taken yet. */
    waiting: () => writer.bytes() + socket.writableLength,
    /** Whether `handle` is this socket, for those who must hide it. */
    is: (handle) => handle === socket || handle === socket._handle,
  };
}

const view = (bytes, at, length) => new Bytes(BytesBuffer(bytes), BytesOffset(bytes) + at, length);

/** Answers a function that takes chunks and calls `onMessage` with each message in them. */
function createReceiver(onMessage) {
  // A frame that spans chunks is gathered here.
  let partial = null;
  let filled = 0;
  const length = new Bytes(4);
  let lengthFilled = 0;

  return function receive(chunk, bytes) {
    let at = 0;
    while (at < bytes) {
      if (partial === null) {
        length[lengthFilled++] = chunk[at++];
        if (lengthFilled < 4) continue;
        lengthFilled = 0;
        const size = length[0] * 0x1000000 + ((length[1] << 16) | (length[2] << 8) | length[3]);
        if (size > MESSAGE_BYTES_MAX) {
          throw new RangeError(`the worker sent a message of ${size} bytes, over the limit of ${MESSAGE_BYTES_MAX}`);
        }
        if (at + size <= bytes) {
          onMessage(decode(view(chunk, at, size)));
          at += size;
        } else {
          partial = BufferAlloc(size);
          filled = 0;
        }
      } else {
        const missing = partial.length - filled;
        const size = bytes - at < missing ? bytes - at : missing;
        BytesSet(partial, view(chunk, at, size), filled);
        at += size;
        filled += size;
        if (filled < partial.length) continue;
        const whole = partial;
        partial = null;
        onMessage(decode(whole));
      }
    }
  };
}
