// One pool for all blocks of an installation, for as long as its config is the
// same: it lives in the module, and so do its connections between invocations.

import { createHash } from "node:crypto";

import { Pool } from "pg";

let current: { key: string; pool: Pool } | undefined;
let made = 0;

export interface Numbered {
  pool: Pool;
  /** How many pools this process has made. */
  made: number;
}

export async function poolFor(config: Record<string, any>): Promise<Numbered> {
  const key = createHash("sha256").update(JSON.stringify(config)).digest("hex");
  if (current?.key !== key) {
    const old = current?.pool;
    const pool = new Pool({
      host: config.host,
      port: config.port,
      database: config.database,
      user: config.user,
      password: config.password,
      connectionTimeoutMillis: 10_000,
      max: 4,
      application_name: "look-alike",
    });
    pool.on("error", (error: Error) => console.error("an idle connection ended:", error.message));
    current = { key, pool };
    made += 1;
    await old?.end();
  }
  return { pool: current!.pool, made };
}
