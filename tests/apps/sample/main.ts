// The app that the demo and the tests run: small, but a user of most of the SDK.

import { defineApp, http, kv, lifecycle, messaging } from "@slflows/sdk/v1";

import { counter } from "./blocks/counter.ts";
import { greet } from "./blocks/greet.ts";
import { reminder } from "./blocks/reminder.ts";
import { slow } from "./blocks/slow.ts";

export const app = defineApp({
  name: "Sample",
  installationInstructions: "Nothing to do: the endpoint is <copyable>{appEndpointUrl}</copyable>.",
  autoconfirm: true,

  config: {
    greeting: {
      name: "Greeting",
      description: "What to say before the name.",
      type: "string",
      required: false,
      default: "Hello",
    },
  },

  signals: {
    greeting: { name: "Greeting", description: "The greeting in use." },
  },

  blocks: { greet, slow, counter, reminder },

  async onSync({ app }) {
    const { value: syncs = 0 } = await kv.app.get("syncs");
    await kv.app.set({ key: "syncs", value: syncs + 1 });
    console.log(`sync number ${syncs + 1} of ${app.installationUrl || "this installation"}`);
    return { newStatus: "ready", signalUpdates: { greeting: app.config.greeting } };
  },

  async onDrain() {
    await kv.app.delete(["syncs"]);
    return { newStatus: "drained", signalUpdates: { greeting: null } };
  },

  async onInternalMessage({ message }) {
    console.log("a block says", message.body);
  },

  http: {
    async onRequest({ request }) {
      if (request.path === "/sync") lifecycle.sync();
      await messaging.sendToBlocks({ blockIds: [], body: { path: request.path } });
      await http.respond(request.requestId, {
        statusCode: 200,
        headers: { "Content-Type": "application/json" },
        body: { method: request.method, path: request.path, query: request.query },
      });
    },
  },

  schedules: {
    daily: {
      description: "Counts the days.",
      customizable: true,
      definition: { type: "cron", cron: { expression: "0 6 * * *", location: "UTC" } },
      async onTrigger() {
        const { value: days = 0 } = await kv.app.get("days");
        await kv.app.set({ key: "days", value: days + 1 });
      },
    },
  },
});
