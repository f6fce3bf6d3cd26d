// Reads a large result through a cursor and emits it in batches while it reads.

import { events } from "@slflows/sdk/v1";
import type { AppBlock, EventInput } from "@slflows/sdk/v1";

import { poolFor } from "../pool.ts";

export const streamQuery: AppBlock = {
  name: "Stream query",
  category: "Bulk",
  description: "Emits a large result in batches, and then a summary.",
  inputs: {
    default: {
      config: {
        sql: { name: "SQL", type: "string", required: true },
        batchSize: { name: "Batch size", description: "Rows of one event.", type: "number", default: 100 },
      },
      async onEvent({ app, event }: EventInput) {
        const { sql, batchSize } = event.inputConfig;
        const { pool } = await poolFor(app.config);
        const client = await pool.connect();
        let rows = 0;
        let batches = 0;
        try {
          await client.query("BEGIN");
          await client.query(`DECLARE stream CURSOR FOR ${sql}`);
          for (;;) {
            const batch = (await client.query(`FETCH ${Number(batchSize)} FROM stream`)).rows;
            if (batch.length === 0) break;
            rows += batch.length;
            batches += 1;
            await events.emit({ number: batches, rows: batch }, { outputKey: "batch" });
          }
          await client.query("COMMIT");
        } catch (error) {
          await client.query("ROLLBACK");
          throw error;
        } finally {
          client.release();
        }
        await events.emit({ rows, batches }, { outputKey: "complete" });
      },
    },
  },
  outputs: {
    batch: { name: "Batch", default: true, possiblePrimaryParents: ["default"], type: "any" },
    complete: { name: "Complete", possiblePrimaryParents: ["default"], type: "any" },
  },
};
