// Emits later, by a timer.

import { events, messaging, timers } from "@slflows/sdk/v1";

export const reminder = {
  name: "Reminder",
  category: "Samples",
  description: "Emits its text again after a while.",
  inputs: {
    default: {
      config: {
        text: { name: "Text", description: "What to remind of.", type: "any", required: true },
        seconds: { name: "Seconds", description: "When.", type: "number", default: 60 },
      },
      async onEvent({ event }: any) {
        const { text, seconds } = event.inputConfig;
        const pendingEventId = await events.createPending({ event: { text }, statusDescription: "reminding later" });
        await timers.set(seconds, { inputPayload: { text }, pendingEventId });
      },
    },
  },
  outputs: {
    default: { name: "Reminded", possiblePrimaryParents: ["default"], type: { type: "object", properties: { text: {} } } },
  },
  async onTimer({ timer }: any) {
    await events.completePending(timer.pendingEvent.id);
    await messaging.sendToApp({ body: timer.payload });
  },
};
