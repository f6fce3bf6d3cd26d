// A database app: a pool of connections in module state, statements, bulk
// inserts, results in batches.

import { defineApp } from "@slflows/sdk/v1";
import type { AppInput } from "@slflows/sdk/v1";

import { bulkInsert } from "./blocks/bulkInsert.ts";
import { query } from "./blocks/query.ts";
import { streamQuery } from "./blocks/streamQuery.ts";
import { poolFor } from "./pool.ts";

export const app = defineApp({
  name: "Relational database",
  config: {
    host: { name: "Host", type: "string", required: true },
    port: { name: "Port", type: "number", default: 5432 },
    database: { name: "Database", type: "string", default: "postgres" },
    user: { name: "User", type: "string", required: true },
    password: { name: "Password", type: "string", sensitive: true },
  },
  signals: { version: { name: "Version", description: "What the server calls itself." } },
  blocks: { query, bulkInsert, streamQuery },
  async onSync({ app }: AppInput) {
    try {
      const { pool } = await poolFor(app.config);
      const { rows } = await pool.query("SHOW server_version");
      return { newStatus: "ready", signalUpdates: { version: rows[0].server_version } };
    } catch (error: any) {
      console.error("no connection:", error.message);
      return { newStatus: "failed", customStatusDescription: `Cannot connect: ${error.message}` };
    }
  },
});
