// Timers, announced events and subroutines: what comes later, what comes back,
// and what has two parents.

import { randomUUID } from "node:crypto";

import { defineApp, events, kv, messaging, timers } from "@slflows/sdk/v1";
import type { AppBlock, EntityInput, EntityOnInternalMessageInput, EventInput } from "@slflows/sdk/v1";

const delay: AppBlock = {
  name: "Delay",
  category: "Time",
  description: "Emits later, unless it is told not to.",
  inputs: {
    start: {
      config: {
        seconds: { name: "Seconds", type: "number", default: 60 },
        name: { name: "Name", type: "string", required: true },
      },
      async onEvent({ event }: EventInput) {
        const { seconds, name } = event.inputConfig;
        const pending = await events.createPending({ event: { name, seconds }, outputKey: "late", statusDescription: `in ${seconds} s` });
        // Any JSON may be a payload, a text alone too.
        const timer = await timers.set(seconds, { inputPayload: name, pendingEventId: pending, description: `delays ${name}` });
        await Promise.all([kv.block.set({ key: name, value: { pending, timer } }), events.emit({ name })]);
      },
    },
    cancel: {
      config: { name: { name: "Name", type: "string", required: true } },
      async onEvent({ event }: EventInput) {
        const { name } = event.inputConfig;
        const { value } = await kv.block.get(name);
        if (value === undefined) throw new Error(`nothing called ${name} is delayed`);
        await Promise.all([timers.unset(value.timer), events.cancelPending(value.pending, "not wanted any more"), kv.block.delete([name])]);
      },
    },
  },
  outputs: {
    started: { name: "Started", default: true, possiblePrimaryParents: ["start"] },
    late: { name: "Late", secondary: true, possiblePrimaryParents: ["start"] },
  },
  async onTimer({ timer }) {
    await events.updatePending(timer.pendingEvent!.id, { statusDescription: "now", event: { name: timer.payload, rang: true } });
    await events.completePending(timer.pendingEvent!.id);
    await kv.block.delete([timer.payload]);
  },
};

const subroutine: AppBlock = {
  name: "Subroutine",
  category: "Control",
  description: "What callers call; its result goes back to them.",
  autoconfirm: true,
  signals: { id: { name: "ID", description: "What callers name." } },
  async onSync({ block }: EntityInput) {
    return { newStatus: "ready", signalUpdates: { id: block.id } };
  },
  async onInternalMessage({ message }: EntityOnInternalMessageInput) {
    const { caller, event, pending, payload } = message.body;
    const execution = randomUUID();
    await kv.block.set({ key: execution, value: { caller, event, pending } });
    // A chain of its own, that remembers who asked.
    await events.emit({ execution, payload }, { echo: true, secondaryParentEventIds: [event] });
  },
  inputs: {
    result: {
      config: { value: { name: "Value", type: "any", required: true } },
      async onEvent({ event }: EventInput) {
        if (!event.echo) throw new Error("this input is for chains that began here");
        const { execution } = event.echo.body;
        const { value } = await kv.block.get(execution);
        await messaging.sendToBlocks({ blockIds: [value.caller], body: { ...value, result: event.inputConfig.value, came: event.id } });
        await kv.block.delete([execution]);
      },
    },
  },
  outputs: { called: { name: "Called", possiblePrimaryParents: [] } },
};

const call: AppBlock = {
  name: "Call",
  category: "Control",
  description: "Calls a subroutine and emits its result, or that there was none in time.",
  config: { subroutine: { name: "Subroutine", type: "string", required: true } },
  inputs: {
    default: {
      config: {
        payload: { name: "Payload", type: "any" },
        patience: { name: "Patience", description: "In seconds.", type: "number", default: 60 },
      },
      async onEvent({ block, event }: EventInput) {
        const { payload, patience } = event.inputConfig;
        const pending = await events.createPending({ outputKey: "returned", parentEventId: event.id, statusDescription: "called" });
        const timer = await timers.block.set(patience, { inputPayload: { pending, event: event.id } });
        await kv.block.set({ key: pending, value: timer });
        await messaging.sendToBlocks({ blockIds: [block.config.subroutine], body: { caller: block.id, event: event.id, pending, payload } });
      },
    },
  },
  outputs: {
    returned: { name: "Returned", default: true, possiblePrimaryParents: ["default"] },
    late: { name: "Late", possiblePrimaryParents: ["default"] },
  },
  async onInternalMessage({ message }: EntityOnInternalMessageInput) {
    const { pending, event, result, came } = message.body;
    const { value: timer } = await kv.block.get(pending);
    if (timer === undefined) return;
    await timers.block.unset(timer);
    await kv.block.delete([pending]);
    await events.emit({ result }, { outputKey: "returned", complete: pending, parentEventId: event, secondaryParentEventIds: [came] });
  },
  async onTimer({ timer }) {
    const { pending, event } = timer.payload;
    await kv.block.delete([pending]);
    await events.cancelPending(pending, "it took too long");
    await events.emit({ after: "its patience" }, { outputKey: "late", parentEventId: event });
  },
};

const alarm: AppBlock = {
  name: "Alarm",
  category: "Time",
  description: "Asks the app to be rung.",
  inputs: {
    default: {
      async onEvent({ block, event }: EventInput) {
        const gone = await timers.app.set(60, { inputPayload: { block: block.id, event: event.id, text: "never" } });
        await timers.app.unset(gone);
        await timers.app.set(0.3, { inputPayload: { block: block.id, event: event.id, text: "ring" }, promptKey: "bell" });
      },
    },
  },
  outputs: { rang: { name: "Rang", possiblePrimaryParents: ["default"] } },
  async onInternalMessage({ message }: EntityOnInternalMessageInput) {
    await events.emit(message.body.text, { parentEventId: message.body.event });
  },
};

export const app = defineApp({
  name: "Timers and subroutines",
  blocks: { delay, subroutine, call, alarm },
  async onTimer({ timer }) {
    const { block, event, text } = timer.payload;
    await messaging.sendToBlocks({ blockIds: [block, "one that was removed"], body: { event, text: `${text} ${timer.prompt.key}` } });
  },
});
