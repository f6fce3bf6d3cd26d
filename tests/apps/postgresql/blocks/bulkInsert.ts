// Inserts many rows with one statement, all or none.

import { events } from "@slflows/sdk/v1";
import type { AppBlock, EventInput } from "@slflows/sdk/v1";

import { poolFor } from "../pool.ts";

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

export const bulkInsert: AppBlock = {
  name: "Bulk insert",
  category: "Bulk",
  description: "Inserts many rows at once.",
  inputs: {
    default: {
      config: {
        table: { name: "Table", type: "string", required: true },
        columns: { name: "Columns", type: { type: "array", items: { type: "string" } }, required: true },
        rows: { name: "Rows", type: { type: "array", items: { type: "array", items: {} } }, required: true },
      },
      async onEvent({ app, event }: EventInput) {
        const { table, columns, rows } = event.inputConfig;
        const { pool } = await poolFor(app.config);
        const client = await pool.connect();
        try {
          await client.query("BEGIN");
          let place = 0;
          const places = rows.map((row: unknown[]) => `(${row.map(() => `$${++place}`).join(", ")})`);
          const names = columns.map(quoted).join(", ");
          const inserted = await client.query(`INSERT INTO ${quoted(table)} (${names}) VALUES ${places.join(", ")}`, rows.flat());
          await client.query("COMMIT");
          await events.emit({ table, rowCount: inserted.rowCount });
        } catch (error) {
          await client.query("ROLLBACK");
          throw error;
        } finally {
          client.release();
        }
      },
    },
  },
  outputs: {
    default: { name: "Inserted", possiblePrimaryParents: ["default"], type: { type: "object", properties: { rowCount: { type: "number" } } } },
  },
};
