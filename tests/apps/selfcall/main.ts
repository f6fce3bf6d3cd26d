// An app that calls itself: `ask` stays open while it asks a tool of its own
// installation over HTTP. The tool hands the question to the flow and leaves the
// request open; another invocation answers it when the flow comes back.

import { defineApp, events, http, kv } from "@slflows/sdk/v1";
import type { AppBlock, AppOnHTTPRequestInput, EntityInput, EventInput } from "@slflows/sdk/v1";

/** Lives as long as the process: how many questions are open at once. */
let open = 0;
let openMost = 0;

const ask: AppBlock = {
  name: "Ask",
  category: "Tools",
  description: "Asks a tool and waits for its answer.",
  config: {
    tool: { name: "Tool", description: "Where the tool listens.", type: "string", required: true },
  },
  inputs: {
    default: {
      config: { question: { name: "Question", type: "string", required: true } },
      async onEvent({ block, event }: EventInput) {
        const pending = await events.createPending({ statusDescription: "asking" });
        openMost = Math.max(openMost, ++open);
        try {
          const answered = await fetch(block.config.tool, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({ question: event.inputConfig.question }),
          });
          const answer: any = await answered.json();
          await events.emit({ status: answered.status, ...answer, openMost }, { complete: pending });
        } finally {
          open -= 1;
        }
      },
    },
  },
  outputs: { default: { name: "Answered", possiblePrimaryParents: ["default"] } },
};

const tool: AppBlock = {
  name: "Tool",
  category: "Tools",
  description: "Is asked over HTTP, and answered by the flow.",
  autoconfirm: true,
  http: {
    async onRequest({ block, request }: AppOnHTTPRequestInput) {
      if (request.method !== "POST") {
        await http.respond(request.requestId, { statusCode: 405, body: { error: "POST a question" } });
        return;
      }
      await kv.block.set({ key: request.requestId, value: request.body, ttl: 60 });
      await events.emit({ requestId: request.requestId, question: request.body.question, asked: block!.name }, { echo: true });
    },
  },
  inputs: {
    answer: {
      config: { text: { name: "Text", type: "string", required: true } },
      async onEvent({ event }: EventInput) {
        if (!event.echo) throw new Error("nobody has asked");
        const { requestId, question } = event.echo.body;
        const { value } = await kv.block.get(requestId);
        await http.respond(requestId, { body: { text: event.inputConfig.text, question, kept: value } });
        await kv.block.delete([requestId]);
      },
    },
  },
  outputs: { asked: { name: "Asked", description: "For each question." } },
  signals: { url: { name: "URL", description: "Where it is asked." } },
  async onSync({ block }: EntityInput) {
    return { newStatus: "ready", signalUpdates: { url: block.http!.url } };
  },
};

export const app = defineApp({ name: "Self-caller", blocks: { ask, tool } });
