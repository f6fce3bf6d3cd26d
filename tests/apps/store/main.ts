// Locks, stores and messages: a mutex over the block's store, a notebook over the
// app's, and members that the app talks to.

import { blocks, defineApp, events, kv, messaging } from "@slflows/sdk/v1";
import type { AppBlock, EntityOnInternalMessageInput, EventInput } from "@slflows/sdk/v1";

const HOLDER = "holder";
const waitingKey = (id: string) => `wait:${id}`;

const mutex: AppBlock = {
  name: "Mutex",
  category: "Locks",
  description: "Lets one event through at a time, the others in the order in which they came.",
  inputs: {
    acquire: {
      async onEvent({ event }: EventInput) {
        const lock = { id: event.id, timeout: 300 };
        await kv.block.set({ key: waitingKey(event.id), value: { since: Date.now() } });
        if (await kv.block.set({ key: HOLDER, value: event.id, lock })) {
          await kv.block.set({ key: waitingKey(event.id), ttl: 0 });
          await events.emit({ holder: event.id }, { outputKey: "acquired", echo: true });
        }
      },
    },
    release: {
      config: { holder: { name: "Holder", type: "string", required: true } },
      async onEvent({ event }: EventInput) {
        const { holder } = event.inputConfig;
        // Somebody else cannot change or release what is not theirs.
        const stolen = await kv.block.set({ key: HOLDER, value: "stolen", lock: { id: "a thief" } });
        const bare = await kv.block.set({ key: HOLDER, value: "stolen" });
        await kv.block.releaseLock({ key: HOLDER, lockId: "a thief" });
        const held = await kv.block.get(HOLDER);
        await kv.block.releaseLock({ key: HOLDER, lockId: holder });
        await events.emit({ stolen, bare, held: held.lock?.id === holder, value: held.value }, { outputKey: "released" });
        // Ids are made in the order of time, so the first key is the oldest wait.
        const { pairs } = await kv.block.list({ keyPrefix: "wait:" });
        const next = pairs[0]?.key.slice("wait:".length);
        if (next === undefined) return;
        await kv.block.set({ key: HOLDER, value: next, lock: { id: next, timeout: 300 } });
        await kv.block.delete([waitingKey(next)]);
        await events.emit({ holder: next }, { outputKey: "acquired", parentEventId: next, echo: true });
      },
    },
  },
  outputs: {
    acquired: { name: "Acquired", default: true, possiblePrimaryParents: ["acquire"] },
    released: { name: "Released", possiblePrimaryParents: ["release"] },
  },
};

/** Every pair with a prefix, page by page. */
async function all(prefix: string): Promise<{ keys: string[]; pages: number }> {
  const keys: string[] = [];
  let startingKey: string | undefined;
  let pages = 0;
  do {
    const page = await kv.app.list({ keyPrefix: prefix, startingKey });
    keys.push(...page.pairs.map(({ key }) => key));
    startingKey = page.nextStartingKey;
    pages += 1;
  } while (startingKey !== undefined);
  return { keys, pages };
}

/** Looks until it is so, for at most 20 seconds. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let look = 0; look < 200 && !(await isSo()); look++) await new Promise((done) => setTimeout(done, 100));
}

const notebook: AppBlock = {
  name: "Notebook",
  category: "Stores",
  description: "Writes many pairs into the app's store and reads them again.",
  inputs: {
    default: {
      config: { count: { name: "Count", type: "number", default: 250 } },
      async onEvent({ event }: EventInput) {
        const count: number = event.inputConfig.count;
        const key = (n: number) => `note:${String(n).padStart(4, "0")}`;
        for (let at = 0; at < count; at += 100) {
          const size = Math.min(100, count - at);
          // Written from the last to the first, and listed from the first to the last.
          const pairs = Array.from({ length: size }, (_, n) => ({ key: key(at + size - 1 - n), value: { n: at + size - 1 - n } }));
          await kv.app.setMany(pairs);
        }
        const { keys, pages } = await all("note:");
        const [second, missing, first] = await kv.app.getMany([key(1), "nothing", key(0)]);
        // One pair of two is another's: nothing of it is written.
        await kv.app.set({ key: "owned", value: "mine", lock: { id: "me" } });
        const whole = await kv.app.setMany([{ key: "free", value: 1 }, { key: "owned", value: 2 }]);
        const free = await kv.app.get("free");
        await kv.app.set({ key: "short", value: "lived", ttl: 2 });
        const young = await kv.app.get("short");
        await kv.app.releaseLock({ key: "owned", lockId: "me" });
        const taken = await kv.app.set({ key: "owned", value: "yours", lock: { id: "you", timeout: 2 } });
        await until(async () => (await kv.app.get("short")).value === undefined && !(await kv.app.get("owned")).lock);
        const late = await kv.app.set({ key: "owned", value: "anybody's" });
        await kv.app.delete(keys.slice(1));
        await events.emit({
          keys: keys.length,
          sorted: keys.every((one, n) => n === 0 || keys[n - 1] < one),
          pages,
          many: [second.value, "value" in missing ? "value" : missing.key, first.value],
          updated: typeof first.updatedAt,
          whole,
          free: free.value === undefined,
          young: young.value,
          youngFor: young.ttl !== undefined && young.ttl > 0 && young.ttl <= 2,
          taken,
          late,
          left: (await all("")).keys,
        });
      },
    },
  },
  outputs: { default: { name: "Read" } },
};

const member: AppBlock = {
  name: "Member",
  category: "Messages",
  description: "Says what it is told to the app, and emits what it hears.",
  config: { nick: { name: "Nick", type: "string", required: true } },
  inputs: {
    say: {
      config: { text: { name: "Text", type: "any", required: true } },
      async onEvent({ block, event }: EventInput) {
        await messaging.sendToApp({ body: { from: block.config.nick, id: block.id, text: event.inputConfig.text, event: event.id } });
      },
    },
  },
  outputs: { heard: { name: "Heard" } },
  async onInternalMessage({ message }: EntityOnInternalMessageInput) {
    await kv.block.setMany([{ key: "last", value: message.body.text }, { key: "from", value: message.body.from }]);
    const [last, from] = await kv.block.getMany(["last", "from"]);
    await events.emit({ last: last.value, from: from.value }, { parentEventId: message.body.event });
  },
};

export const app = defineApp({
  name: "Stores and messages",
  autoconfirm: true,
  blocks: { mutex, notebook, member },
  async onInternalMessage({ message }: EntityOnInternalMessageInput) {
    const { from, id, text, event } = message.body;
    const { blocks: members } = await blocks.list({ typeIds: ["member"] });
    const others = members.filter((other) => other.id !== id && other.config?.nick !== text.except);
    // Nobody, at times: that is no mistake.
    await messaging.sendToBlocks({ blockIds: [], body: { text } });
    await messaging.sendToBlocks({ blockIds: others.map((other) => other.id), body: { from, text, event } });
    await kv.app.set({ key: `said:${from}`, value: { text, to: others.map((other) => other.name).sort() } });
  },
});
