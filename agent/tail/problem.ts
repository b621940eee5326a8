/** What the tail reports beside its chunks: it goes on in every case, perhaps with less. */
export type TailProblem = {
  readonly code: /** Changes of directories are no longer announced; the periodic scan still finds them. */
    | 'watch_failed'
    /** A directory cannot be listed: its files are not followed, and none is declared lost. */
    | 'unlistable'
    /** A file cannot be opened or read; tried again at every scan. */
    | 'unreadable'
    /** A device, a pipe or a socket where a log file should be. */
    | 'not_a_file'
    /** A symbolic link that leaves the directories the configuration allows. */
    | 'symlink_refused'
    /** A compressed file is damaged; what comes after the damage is a gap. */
    | 'corrupt_gzip'
  readonly path: string
  readonly message: string
}

export type OnProblem = (problem: TailProblem) => void
