// Counts events under a lock, in the block's own store.

import { events, kv, lifecycle } from "@slflows/sdk/v1";

export const counter = {
  name: "Counter",
  category: "Samples",
  description: "Counts the events it gets.",
  autoconfirm: true,
  config: {
    start: { name: "Start", description: "Where to begin.", type: "number", fixed: true, default: 0 },
  },
  inputs: {
    default: {
      async onEvent({ block, event }: any) {
        const lock = { id: event.id, timeout: 10 };
        const { value = block.config.start } = await kv.block.get("count");
        const count = value + 1;
        if (!(await kv.block.set({ key: "count", value: count, lock }))) throw new Error("somebody else is counting");
        await Promise.all([
          events.emit({ count }, { outputKey: "counted", echo: true }),
          kv.block.releaseLock({ key: "count", lockId: lock.id }),
        ]);
        lifecycle.sync();
      },
    },
    reset: {
      async onEvent() {
        const { pairs } = await kv.block.list({ keyPrefix: "" });
        await kv.block.delete(pairs.map((pair: any) => pair.key));
      },
    },
  },
  outputs: {
    counted: { name: "Counted", default: true, possiblePrimaryParents: ["default"], type: { type: "object", properties: { count: { type: "number" } } } },
  },
  signals: { count: { name: "Count", description: "How many there were." } },
  async onSync({ block }: any) {
    const { value = block.config.start } = await kv.block.get("count");
    return { newStatus: "ready", customStatusDescription: `${value} counted`, signalUpdates: { count: value } };
  },
};
