// The HTTP request block of the product itself, as an app: it runs beside the
// user's network, in a runtime of the pool that the block names.
import { defineApp } from '@slflows/sdk/v1';

/** The largest body of a response, in bytes: it becomes the body of an event. */
const BODY_BYTES_MAX = 768 * 1024;

export const app = defineApp({
  name: 'HTTP request',
  blocks: {
    request: {
      inputs: {
        default: {
          async onEvent(input) {
            const { url, method, headers, body, timeoutMs } = input.event.inputConfig;
            const response = await fetch(url, { method, headers, body: body ?? undefined, signal: AbortSignal.timeout(timeoutMs) });
            return { statusCode: response.status, headers: Object.fromEntries(response.headers), rawBody: await text(response) };
          },
        },
      },
    },
  },
});

async function text(response) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`the body of the response has more than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
