/** Files packed into the binary: the default export is a path that `Bun.file` reads. */
declare module '*.log' {
  const path: string
  export default path
}
