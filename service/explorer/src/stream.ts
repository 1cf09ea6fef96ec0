/** Server-sent events over fetch, for EventSource cannot send a key. */
import { Failure, failureOf, headers, type Updates } from "./api";

/** Splits what arrives into the data of messages; a message ends with an empty line. */
export class Messages {
  #rest = "";

  push(text: string): string[] {
    this.#rest += text.replace(/\r\n?/g, "\n");
    const found: string[] = [];
    for (let end = this.#rest.indexOf("\n\n"); end >= 0; end = this.#rest.indexOf("\n\n")) {
      const lines = this.#rest.slice(0, end).split("\n");
      this.#rest = this.#rest.slice(end + 2);
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length) found.push(data.join("\n"));
    }
    return found;
  }
}

export type Standing = { open: boolean; failure: Failure | null };

/** Follow GET /v1/updates until told to stop; comes back by itself, later each time. */
export function follow(take: (updates: Updates) => void, standing: (now: Standing) => void): () => void {
  const stop = new AbortController();
  void (async () => {
    for (let tries = 0; !stop.signal.aborted; tries++) {
      try {
        const response = await fetch("/v1/updates", { headers: headers(), signal: stop.signal });
        if (!response.ok || !response.body) throw await failureOf(response);
        standing({ open: true, failure: null });
        tries = 0;
        const messages = new Messages();
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          for (const data of messages.push(value)) take(JSON.parse(data) as Updates);
        }
        standing({ open: false, failure: null });
      } catch (error) {
        if (stop.signal.aborted) return;
        const failure = error instanceof Failure ? error : new Failure(0, String(error));
        standing({ open: false, failure });
        if (failure.status === 401 || failure.status === 403) return;
      }
      await new Promise((later) => setTimeout(later, Math.min(15_000, 500 * 2 ** tries)));
    }
  })();
  return () => stop.abort();
}
