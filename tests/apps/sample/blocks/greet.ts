// Emits a greeting and returns it.

import { createHash } from "node:crypto";

import { events } from "@slflows/sdk/v1";

export const greet = {
  name: "Greet",
  category: "Samples",
  description: "Greets somebody by name.",
  inputs: {
    default: {
      name: "Greet",
      config: {
        name: { name: "Name", description: "Whom to greet.", type: "string", required: true },
        punctuation: { name: "Punctuation", type: "string", default: "!" },
      },
      async onEvent({ app, event }: any) {
        const { name, punctuation } = event.inputConfig;
        const text = `${app.config.greeting} ${name}${punctuation}`;
        console.log("greeting", name);
        const body = { text, digest: createHash("sha256").update(text).digest("hex") };
        await events.emit(body);
        return body;
      },
    },
  },
  outputs: {
    default: {
      name: "Greeted",
      description: "The greeting.",
      default: true,
      possiblePrimaryParents: ["default"],
      type: {
        type: "object",
        properties: { text: { type: "string" }, digest: { type: "string" } },
        required: ["text", "digest"],
      },
    },
  },
};
