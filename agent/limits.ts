/** Every bound in the program, each with its reason. */

/** A longer line is cut here and the rest becomes a gap: one line may not fill the memory. */
export const lineBytesMax = 1 << 20
/** One file's turn: long enough to amortise the call, short enough that a busy file starves nobody. */
export const chunkBytesMax = 256 * 1024
/** Rows held in memory before they must be committed: bounds memory, and work lost to a crash. */
export const batchRowsMax = 8192
/** Raw bytes held in memory before they must be committed. */
export const batchBytesMax = 8 << 20
/** Garbage of so many rows is collected at once: twice as many saves 4 % of the CPU and peaks above 256 MB. */
export const sweepRows = 8192
/** Under full load rules look at so many rows at once; less than a second's worth. */
export const rulesRowsMax = 32_768
/** The longest a line waits for its commit when nobody asks. */
export const commitAgeMs = 800
/** The longest a query waits for the tail to reach what was written before it. */
export const catchUpMs = 1000
/** What identifies a file's content is its first line, at most this much of it: enough for any timestamp. */
export const fingerprintBytesMax = 1024
/** Compared before every read: a file that was rewritten differs here, unless its last bytes are the same. */
export const beforeBytesMax = 64
/** Parts of one split line held for joining; at the usual 16 KiB a part, 64 make `lineBytesMax`. */
export const partsPerLineMax = 1024
/** One turn looks this far ahead for the end of an overlong line, then the next file has its turn. */
export const scanBytesMax = 16 << 20
/** Two files are compared byte by byte up to here to tell a copy from a file that begins alike. */
export const compareBytesMax = 64 << 20
/** A finished generation not seen on disk for this long is forgotten; rotated files live shorter. */
export const forgetFinishedMs = 24 * 3600 * 1000
/** Room a commit leaves for what is signed over it: head, checkpoint, their twins, and a few tiles. */
export const statementBytesMax = 32 * 1024
/** A larger page is refused unread: ours hold a batch at most, and a hostile one would fill the memory. */
export const pageBytesMax = 128 << 20
/** A part of at least so many rows is copied into its segment as a row group of its own. */
export const rowGroupRowsMin = 1024
/** Parts are sealed when the oldest is this old, … */
export const sealAgeMs = 5 * 60_000
/** (unless they hold no more than the notice of the seal before them: an idle node seals nothing) */
export const sealAgeRowsMin = 1
/** … or they hold so many bytes, … */
export const sealBytesMax = 64 << 20
/** … or there are so many: scanning 300 small files costs 30 to 50 ms, 5,000 cost 0.5 s. */
export const sealPartsMax = 300
/** Compressed rotated files decompressed side by side: each holds about 300 KiB of buffers. */
export const gzipOpenMax = 4
