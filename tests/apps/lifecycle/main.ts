// An app with a life of its own: it waits for its user, fails, says nothing, and
// leaves calls unawaited. Exported as the default, as some authors do.

import { createHash, createHmac, randomUUID } from "node:crypto";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";

import { defineApp, events, http, kv, lifecycle } from "@slflows/sdk/v1";
import type { AppBlock, AppInput, EntityInput, EventInput } from "@slflows/sdk/v1";

const LOGIN = "login";

/** What a user has to do first is a prompt; until then the app says nothing new. */
async function onSync({ app }: AppInput) {
  const { mode } = app.config;
  if (mode === "fail") return { newStatus: "failed", customStatusDescription: "it was told to fail" };
  if (mode === "throw") throw new Error(`a ${app.config.token} was thrown`);
  const { value: user } = await kv.app.get("user");
  if (user !== undefined) {
    if (LOGIN in app.prompts) await lifecycle.prompt.delete(LOGIN);
    return { newStatus: "ready", customStatusDescription: null, signalUpdates: { user, undeclared: mode } };
  }
  if (!(LOGIN in app.prompts)) {
    await lifecycle.prompt.create(LOGIN, "**Log in** to go on", {
      redirect: { url: `${app.http.url}/login`, method: "POST", formFields: { state: "s1" } },
    });
    await lifecycle.prompt.create("read", "Read the manual", { redirect: { url: "https://example.org/", method: "GET" } });
    return { newStatus: "in_progress", customStatusDescription: "waiting for you to log in" };
  }
  // The status stays what it was, and what was said about it.
  console.log("nothing new");
  return {};
}

const counter: AppBlock = {
  name: "Counter",
  category: "Life",
  description: "Counts its syncs, and asks for more without waiting.",
  autoconfirm: true,
  signals: { syncs: { name: "Syncs" } },
  async onSync({ block }: EntityInput) {
    return { newStatus: "ready", signalUpdates: { syncs: (block.lifecycle?.signals?.syncs ?? 0) + 1 } };
  },
  inputs: {
    default: {
      async onEvent() {
        await kv.block.set({ key: "asked", value: true });
        // Nobody awaits it.
        lifecycle.sync();
      },
    },
  },
};

const hasty: AppBlock = {
  name: "Hasty",
  category: "Life",
  description: "Throws with calls under way.",
  inputs: {
    default: {
      async onEvent({ event }: EventInput) {
        const pending = await events.createPending({ event: { never: true }, statusDescription: "under way" });
        await kv.block.set({ key: "pending", value: pending });
        console.log("about to throw", event.id);
        events.cancelPending(pending, "it threw");
        events.emit({ before: "the throw" });
        kv.block.set({ key: "last words", value: event.id });
        throw new TypeError("thrown on purpose");
      },
    },
  },
  outputs: { default: { name: "Default" } },
};

const builtins: AppBlock = {
  name: "Built-ins",
  category: "Node",
  description: "Uses what Node brings along.",
  inputs: {
    default: {
      async onEvent({ app, block }: EventInput) {
        const dir = await mkdtemp(join(tmpdir(), "upload-"));
        const text = "zażółć gęślą jaźń ".repeat(1000);
        const file = join(dir, "text.gz");
        await writeFile(file, gzipSync(text));
        const same = gunzipSync(await readFile(file)).toString() === text;
        await rm(dir, { recursive: true });
        // A server and its client in the same process.
        const server = createServer((socket) => socket.end("served"));
        server.listen(0, "127.0.0.1");
        await once(server, "listening");
        const { port } = server.address() as any;
        const net = await import("node:net");
        const client = net.connect(port, "127.0.0.1");
        const [served] = await once(client, "data");
        server.close();
        const bytes = new TextEncoder().encode("abc");
        const digest = await crypto.subtle.digest("SHA-256", bytes);
        await events.emit({
          same,
          served: String(served),
          web: Buffer.from(digest).toString("hex") === createHash("sha256").update("abc").digest("hex"),
          hmac: createHmac("sha256", "k").update("v").digest("base64"),
          uuid: randomUUID().length,
          localhost: (await lookup("localhost")).address,
          base64: atob(btoa("there and back")),
          url: new URL("/b?c=d", "https://a.example").href,
          fetch: typeof fetch,
          required: typeof require("node:child_process").execFile,
          dirname: typeof __dirname,
          about: [app.signals.user, app.installationUrl.startsWith("http"), block.name, block.description],
        });
      },
    },
  },
  outputs: { default: { name: "Default" } },
};

const busy: AppBlock = {
  name: "Busy",
  category: "Life",
  description: "Makes many calls at once, and logs in between.",
  inputs: {
    default: {
      config: { name: { name: "Name", type: "string", required: true } },
      async onEvent({ event }: EventInput) {
        const { name } = event.inputConfig;
        const numbers = Array.from({ length: 100 }, (_, n) => n);
        await Promise.all(numbers.map((n) => kv.block.set({ key: `${name}:${n}`, value: n })));
        const pairs = await Promise.all(numbers.map((n) => kv.block.get(`${name}:${n}`)));
        for (let line = 0; line < 5; line++) {
          console.info(`${name} line ${line}`);
          await new Promise((done) => setTimeout(done, 5));
        }
        console.error(`${name} is done`, { of: pairs.length });
        console.debug("%s has %d", name, pairs.length);
        await events.emit({ right: pairs.every(({ value }, n) => value === n) });
      },
    },
  },
  outputs: { default: { name: "Default" } },
};

const draft: AppBlock = {
  name: "Draft",
  category: "Life",
  description: "Does nothing until somebody confirms it, and goes only at the second try.",
  async onSync() {
    return { newStatus: "drifted", customStatusDescription: "not as it was left" };
  },
  async onDrain({ block }: EntityInput) {
    const { value: tries = 0 } = await kv.app.get(block.id);
    await kv.app.set({ key: block.id, value: tries + 1 });
    if (tries === 0) return { newStatus: "draining_failed", customStatusDescription: "it is in use" };
    return { newStatus: "drained" };
  },
};

export default defineApp({
  name: "Life cycle",
  config: {
    mode: { name: "Mode", type: "string", default: "login" },
    token: { name: "Token", type: "string", sensitive: true, default: "token-by-default" },
  },
  signals: { user: { name: "User" } },
  blocks: { counter, hasty, builtins, busy, draft },
  onSync,
  http: {
    async onRequest({ request }) {
      if (request.path !== "/login") return http.respond(request.requestId, { statusCode: 404 });
      await kv.app.set({ key: "user", value: request.body.user });
      await http.respond(request.requestId, { statusCode: 303, headers: { Location: "/" } });
      await lifecycle.proceed();
    },
  },
});
