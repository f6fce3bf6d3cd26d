// Waits, so that something runs for as long as a test needs it to.

import { setTimeout as wait } from "node:timers/promises";

import { events } from "@slflows/sdk/v1";

export const slow = {
  name: "Slow",
  category: "Samples",
  description: "Waits before it emits.",
  inputs: {
    default: {
      config: {
        seconds: { name: "Seconds", description: "How long to wait.", type: "number", default: 1 },
      },
      async onEvent({ event }: any) {
        const { seconds } = event.inputConfig;
        const pending = await events.createPending({ statusDescription: `waiting ${seconds} s` });
        await wait(seconds * 1000);
        console.log(`waited ${seconds} s`);
        await events.emit({ seconds }, { complete: pending });
        return { seconds };
      },
    },
  },
  outputs: {
    default: { name: "Done", possiblePrimaryParents: ["default"], type: { type: "object", properties: { seconds: { type: "number" } } } },
  },
};
