/** Every bound on a query, each with its reason. */

/** A statement longer than this is generated, not written; its tree alone would fill the child. */
export const sqlBytesMax = 100_000
/** Request body of `POST /v1/query`: the statement, its parameters, and JSON escapes around them. */
export const bodyBytesMax = 200_000
/** Levels of the JSON parse tree. A chain of 100 `||` uses 200; a thousand levels are an attack. */
export const treeDepthMax = 800
/** Parameters of one statement. */
export const paramsMax = 1000

/** Rows a person gets unless the request says otherwise. */
export const rowsDefault = 10_000
/** Rows any request may ask for: the answer is spooled in memory for all formats but NDJSON. */
export const rowsMax = 1_000_000
/** Bytes of encoded rows in one answer: spooled answers are held in the agent's memory. */
export const resultBytesMax = 64 << 20
/** One frame on the pipe between child and parent; a larger one means the child is not ours any more. */
export const frameBytesMax = resultBytesMax + (4 << 20)
/** Encoded rows are cut into frames of about this size, so that the first rows travel early. */
export const frameBytesTarget = 256 * 1024

/** A query's whole life, from the job to the last row read, unless the request says otherwise. */
export const timeoutMsDefault = 30_000
/** The longest a request may ask for: replaced files are kept for as long. */
export const timeoutMsMax = 300_000

/** Private memory of a child. Bun and DuckDB take about 60 MB of it before the first row. */
export const memoryMbDefault = 512
/** How often the parent looks at the child's memory: DuckDB allocates about 1 MB/ms at its worst. */
export const watchdogMs = 20

/** Children at work at once: two cores are the smallest node. */
export const runningMax = 2
/** Queries that may wait for a child; the next is told `busy`. */
export const waitingMax = 16
/** A spare child costs about 60 MB of private memory: given up after this long without a query. */
export const spareIdleMs = 300_000
