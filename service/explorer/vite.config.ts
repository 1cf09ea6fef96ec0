/** The page as it ships: stable names, no inline script or style, so that the policy can forbid both. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "/explorer/",
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: {
        entryFileNames: "app.js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8080" } },
  test: { include: ["test/**/*.test.ts"] },
});
