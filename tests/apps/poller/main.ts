// A poller: asks again and again by schedules and by its own syncs, and takes
// its time to go.

import { defineApp, events, kv } from "@slflows/sdk/v1";
import type { AppBlock, EntityInput } from "@slflows/sdk/v1";

async function count(store: typeof kv.app, key: string): Promise<number> {
  const { value = 0 } = await store.get(key);
  await store.set({ key, value: value + 1 });
  return value + 1;
}

const feed: AppBlock = {
  name: "Feed",
  category: "Polling",
  description: "Emits what is new, every second by one schedule and by another.",
  entrypoint: true,
  config: { source: { name: "Source", type: "string", fixed: true, required: true } },
  outputs: {
    item: { name: "Item", default: true },
    tick: { name: "Tick" },
  },
  schedules: {
    often: {
      description: "Every second.",
      customizable: true,
      definition: { type: "frequency", frequency: { interval: 1, unit: "seconds" } },
      async onTrigger({ block }: any) {
        await events.emit({ item: await count(kv.block, "items"), source: block.config.source });
      },
    },
    ticking: {
      definition: { type: "cron", cron: { expression: "* * * * * *", location: "Europe/Warsaw" } },
      async onTrigger() {
        await events.emit(null, { outputKey: "tick" });
      },
    },
  },
};

const resource: AppBlock = {
  name: "Resource",
  category: "Polling",
  description: "Takes a while to be made, is looked at ever after, and takes a while to go.",
  autoconfirm: true,
  signals: { state: { name: "State" }, looks: { name: "Looks", description: "How often it was looked at." } },
  async onSync({ block }: EntityInput) {
    const looks = await count(kv.block, "looks");
    const { value: since } = await kv.block.get("since");
    if (since === undefined) {
      await kv.block.set({ key: "since", value: Date.now() });
      return { newStatus: "in_progress", customStatusDescription: "being made", nextScheduleDelay: 1, signalUpdates: { state: "making" } };
    }
    const before = block.lifecycle?.signals?.looks;
    return { newStatus: "ready", customStatusDescription: `looked at ${looks} times`, signalUpdates: { state: "made", looks, before }, nextScheduleDelay: 1 };
  },
  async onDrain({ block }: EntityInput) {
    const drains = await count(kv.app, `drains of ${block.name}`);
    if (drains < 3) return { newStatus: "draining", customStatusDescription: `step ${drains}`, nextScheduleDelay: 1, signalUpdates: { state: null } };
    return { newStatus: "drained" };
  },
};

export const app = defineApp({
  name: "Poller",
  blocks: { feed, resource },
  schedules: {
    hourly: {
      description: "Not in the time of a test.",
      definition: { type: "cron", cron: { expression: "0 * * * *", location: "UTC" } },
      async onTrigger() {
        throw new Error("an hour cannot have passed");
      },
    },
    beat: {
      definition: { type: "frequency", frequency: { interval: 1, unit: "second" } },
      async onTrigger({ app }: any) {
        await kv.app.set({ key: "beats", value: { count: await count(kv.app, "beating"), url: app.http.url } });
      },
    },
  },
  async onDrain() {
    await kv.app.delete(["beats", "beating"]);
    return { newStatus: "drained" };
  },
});
