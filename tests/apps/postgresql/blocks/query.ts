// Runs one statement and emits its rows.

import { events } from "@slflows/sdk/v1";
import type { AppBlock, EventInput } from "@slflows/sdk/v1";

import { poolFor } from "../pool.ts";

export const query: AppBlock = {
  name: "Query",
  category: "Statements",
  description: "Runs a statement and emits its rows.",
  inputs: {
    default: {
      name: "Run",
      config: {
        sql: { name: "SQL", description: "With $1, $2 … for the parameters.", type: "string", required: true },
        parameters: { name: "Parameters", type: { type: "array", items: { type: "any" } }, default: [] },
      },
      async onEvent({ app, event }: EventInput) {
        const { sql, parameters } = event.inputConfig;
        const { pool, made } = await poolFor(app.config);
        const { rows, rowCount } = await pool.query(sql, parameters);
        await events.emit({ rows, rowCount, pools: made });
      },
    },
  },
  outputs: {
    default: {
      name: "Rows",
      default: true,
      possiblePrimaryParents: ["default"],
      type: { type: "object", properties: { rows: { type: "array", items: { type: "object" } }, rowCount: { type: "number" } } },
    },
  },
};
