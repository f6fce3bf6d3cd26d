// Outputs that are known only when the block is configured, values that others
// follow, drawings, and suggestions for those who configure.

import { defineApp, events, ui } from "@slflows/sdk/v1";
import type { AppBlock, EntityInput, EventInput } from "@slflows/sdk/v1";

const label = (text: string, color: string) => ({
  elements: [
    {
      type: "svg",
      attributes: { width: "100%", height: "24" },
      children: [
        { type: "element", tag: "circle", attributes: { cx: "12", cy: "12", r: "10", fill: color }, children: [] },
        { type: "text", value: text, attributes: { x: "32", y: "16" } },
      ],
    },
  ],
});

const REGIONS = ["Mazowsze", "Małopolska", "Śląsk"];

const router: AppBlock = {
  name: "Router",
  category: "Dynamic",
  description: "Has an output for each route.",
  config: {
    routes: { name: "Routes", type: { type: "array", items: { type: "string" } }, required: true },
    region: {
      name: "Region",
      type: "string",
      async suggestValues({ app, searchPhrase = "" }: any) {
        const found = REGIONS.filter((region) => region.toLowerCase().includes(searchPhrase.toLowerCase()));
        return {
          suggestedValues: found.map((region) => ({ label: `${region}!`, value: region, description: app.config.country })),
          message: found.length === 0 ? "there is none" : undefined,
        };
      },
    },
  },
  inputs: {
    default: {
      config: {
        route: { name: "Route", type: "string" },
        body: {
          name: "Body",
          type: "any",
          async suggestValues({ staticInputConfig }: any) {
            return { suggestedValues: [{ label: "For the route", value: staticInputConfig?.route }] };
          },
        },
      },
      async onEvent({ event }: EventInput) {
        const { route, body } = event.inputConfig;
        await events.emit(body, { outputKey: route });
      },
    },
  },
  outputs: { other: { name: "Other", description: "For what has no route.", default: true } },
  signals: {
    routes: { name: "Routes", description: "Those there are." },
    key: { name: "Key", description: "Changes with each sync that changes something.", sensitive: true, sensitivity: "hide_by_default" },
  },
  async onSync({ block }: EntityInput) {
    const { routes } = block.config;
    const outputUpdates: Record<string, any> = {};
    for (const [key, output] of Object.entries<any>(block.outputs ?? {})) {
      if (output.modified && !routes.includes(key)) outputUpdates[key] = null;
    }
    for (const route of routes) outputUpdates[route] = { name: `Route ${route}`, possiblePrimaryParents: ["default"] };
    await ui.widget.set(label(`${routes.length} routes`, routes.length > 0 ? "green" : "grey"));
    return { newStatus: "ready", outputUpdates, signalUpdates: { routes, key: `key-of-${routes.join("-")}` } };
  },
};

const follower: AppBlock = {
  name: "Follower",
  category: "Dynamic",
  description: "Its config follows the signals of another block.",
  autoconfirm: true,
  config: {
    followed: { name: "Followed", type: "any", required: true },
    country: { name: "Country", type: "string" },
  },
  signals: { seen: { name: "Seen" }, syncs: { name: "Syncs" } },
  async onSync({ block }: EntityInput) {
    const syncs = (block.lifecycle?.signals?.syncs ?? 0) + 1;
    return { newStatus: "ready", signalUpdates: { seen: block.config, syncs } };
  },
};

/** Each emits without naming an output. */
const plain = (outputs: Record<string, any>): AppBlock => ({
  name: "Plain",
  category: "Defaults",
  description: "Emits on the output that is meant.",
  inputs: {
    default: {
      async onEvent() {
        await events.emit("here");
      },
    },
  },
  outputs,
});

export const app = defineApp({
  name: "Dynamic outputs",
  config: { country: { name: "Country", type: "string", default: "Poland" } },
  signals: { country: { name: "Country" } },
  blocks: {
    router,
    follower,
    flagged: plain({ first: { name: "First" }, default: { name: "Default" }, flagged: { name: "Flagged", default: true } }),
    named: plain({ first: { name: "First", order: 0 }, default: { name: "Default" } }),
    sole: plain({ only: { name: "Only", type: { type: "string" } } }),
    secondary: plain({ later: { name: "Later", secondary: true }, now: { name: "Now", order: 7 } }),
  },
  async onSync({ app }) {
    return { newStatus: "ready", signalUpdates: { country: app.config.country } };
  },
});
