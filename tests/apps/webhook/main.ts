// A signed-webhook app: what comes in is believed only with a valid HMAC over
// the exact bytes, is handed to every subscription, and is worked on after the
// answer has gone out.

import { createHmac, timingSafeEqual } from "node:crypto";
import { gzipSync } from "node:zlib";

import { blocks, defineApp, events, http, kv, messaging } from "@slflows/sdk/v1";
import type { AppBlock, AppOnHTTPRequestInput, HTTPRequest } from "@slflows/sdk/v1";

/** As a gateway in Go would write it; lower case would find nothing. */
const SIGNATURE = "X-Hub-Signature-256";

function isSigned(request: HTTPRequest, secret: string): boolean {
  const given = Buffer.from(request.headers[SIGNATURE] ?? "");
  const wanted = Buffer.from(`sha256=${createHmac("sha256", secret).update(request.rawBody).digest("hex")}`);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

const subscription: AppBlock = {
  name: "Subscription",
  category: "Webhooks",
  description: "Emits what comes in of the kinds it asks for.",
  entrypoint: true,
  config: {
    kind: { name: "Kind", description: "Of what comes in.", type: "string", required: true },
  },
  outputs: {
    received: { name: "Received", description: "One for each.", default: true, type: "any" },
  },
  async onInternalMessage({ block, message }) {
    const { kind, payload, delivery } = message.body;
    if (kind !== block.config.kind) return;
    await events.emit({ payload, delivery, by: block.name });
  },
};

async function onWebhook({ app, request }: AppOnHTTPRequestInput): Promise<void> {
  if (!isSigned(request, app.config.secret)) {
    console.warn(`a request to ${app.config.audience} was not signed with`, app.config.secret);
    await http.respond(request.requestId, { statusCode: 401, body: { error: "the signature is wrong" } });
    return;
  }
  // Whoever calls is not kept waiting for what follows.
  await http.respond(request.requestId, { statusCode: 202, headers: { "X-Took": "it" }, body: "accepted" });
  const kind = request.headers["X-Event-Kind"];
  const { blocks: subscribers } = await blocks.list({ typeIds: ["subscription"] });
  const interested = subscribers.filter(({ config }) => config?.kind === kind);
  await messaging.sendToBlocks({
    blockIds: interested.map(({ id }) => id),
    body: { kind, payload: request.body, delivery: request.headers["X-Delivery"] },
  });
  const { value = 0 } = await kv.app.get("received");
  await kv.app.set({ key: "received", value: value + 1 });
}

/** What a form says, as a chat's slash commands are sent. */
async function onCommand({ request }: AppOnHTTPRequestInput): Promise<void> {
  const payload = JSON.parse(request.body.payload);
  await http.respond(request.requestId, { body: { heard: payload.text, all: request.body.tag, type: request.headers["Content-Type"] } });
}

/** A file, as bytes. */
async function onArchive({ request }: AppOnHTTPRequestInput): Promise<void> {
  const bytes: Uint8Array = gzipSync(Buffer.from(request.query.text ?? "", "utf8"));
  await http.respond(request.requestId, {
    statusCode: 200,
    headers: { "Content-Type": "application/gzip", "Content-Disposition": "attachment; filename=text.gz" },
    body: bytes,
  });
}

export const app = defineApp({
  name: "Signed webhooks",
  installationInstructions: "Point the sender at <copyable>{appEndpointUrl}/webhook</copyable> of {appEndpointHost}.",
  config: {
    secret: { name: "Secret", description: "Shared with the sender.", type: "string", required: true, sensitive: true },
    audience: { name: "Audience", description: "No secret by itself.", type: "string", default: "all" },
  },
  blocks: { subscription },
  http: {
    async onRequest(input: AppOnHTTPRequestInput) {
      const { request } = input;
      if (request.path === "/webhook") return onWebhook(input);
      if (request.path === "/command") return onCommand(input);
      if (request.path === "/archive") return onArchive(input);
      const { method, path, query, headers, body } = request;
      if (path === "/broken") throw new Error(`the handler broke over ${input.app.config.secret}`);
      await http.respond(request.requestId, { statusCode: 404, body: { method, path, query, agent: headers["User-Agent"], body } });
    },
  },
});
