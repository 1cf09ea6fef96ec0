/** What components share: words, the address, answers that are asked for again as the question changes. */
import { createContext } from "preact";
import { useCallback, useContext, useEffect, useRef, useState } from "preact/hooks";
import { Failure, type ItemView, type Update } from "./api";
import type { Words } from "./i18n";
import type { State } from "./state";
import type { Standing } from "./stream";

export interface Shell {
  t: Words;
  state: State;
  /** Change what is shown; a new place in the history only where it is another question. */
  go(change: Partial<State>, remember?: boolean): void;
  /** Items whose titles are known, by id. */
  known: Map<string, ItemView>;
  updates: Update[];
  passedOver: number;
  standing: Standing;
  /** Counts up with each change that arrives: whoever shows items asks again. */
  pulse: number;
  /** Counts up with each key that is given. */
  keyed: number;
  askKey(failure?: Failure): void;
  offline: boolean;
  failed(failure: Failure): void;
  answered(): void;
  say(text: string): void;
}

export const ShellContext = createContext<Shell>(null as unknown as Shell);
export const useShell = (): Shell => useContext(ShellContext);

/** Words alone, for what is drawn by the dozen: the rest of the shell changes with each event that arrives. */
export const WordsContext = createContext<Words>(null as unknown as Words);
export const useWords = (): Words => useContext(WordsContext);

export interface Asked<T> {
  data: T | null;
  failure: Failure | null;
  loading: boolean;
  again(): void;
}

/**
 * The answer to the newest question. One request is in flight at a time: a question that comes meanwhile waits,
 * and one that comes after it takes its place. The answer before stays until the next one is there.
 */
export function useAsked<T>(
  question: string | null,
  ask: (() => Promise<T>) | null,
  refresh = 0,
  every = 0,
): Asked<T> {
  const shell = useShell();
  const [data, setData] = useState<T | null>(null);
  const [failure, setFailure] = useState<Failure | null>(null);
  const [loading, setLoading] = useState(false);
  const current = useRef({ question, ask, wanted: false, busy: false, gone: false });
  const shellRef = useRef(shell);
  shellRef.current = shell;

  const run = useCallback(() => {
    const at = current.current;
    at.wanted = true;
    if (at.busy) return;
    void (async () => {
      at.busy = true;
      while (at.wanted && at.ask && !at.gone) {
        at.wanted = false;
        const asked = at.question;
        setLoading(true);
        try {
          const found = await at.ask();
          if (at.gone) break;
          shellRef.current.answered();
          if (asked === at.question) {
            setData(found);
            setFailure(null);
          }
        } catch (error) {
          if (at.gone) break;
          const refused = error instanceof Failure ? error : new Failure(0, String(error));
          shellRef.current.failed(refused);
          if (asked === at.question) setFailure(refused);
        }
      }
      at.busy = false;
      if (!at.gone) setLoading(false);
    })();
  }, []);

  useEffect(() => {
    const at = current.current;
    const other = at.question !== question;
    at.question = question;
    at.ask = ask;
    if (question === null) {
      setData(null);
      setFailure(null);
      return;
    }
    if (other || refresh >= 0) run();
  }, [question, refresh, shell.keyed]);

  useEffect(() => {
    if (!every || question === null) return;
    const timer = setInterval(run, every);
    return () => clearInterval(timer);
  }, [every, question]);

  // What waits for a store, or for vectors, is asked again without anybody's doing.
  useEffect(() => {
    if (!failure || ![0, 409, 429, 503].includes(failure.status)) return;
    const timer = setTimeout(run, failure.status === 409 ? 700 : 2500);
    return () => clearTimeout(timer);
  }, [failure]);

  useEffect(() => {
    current.current.gone = false;
    return () => {
      current.current.gone = true;
    };
  }, []);

  return { data, failure, loading, again: run };
}

/** The width of an element, as it changes. */
export function useWidth(): [(element: HTMLElement | null) => void, number] {
  const [width, setWidth] = useState(0);
  const observer = useRef<ResizeObserver | null>(null);
  const watch = useCallback((element: HTMLElement | null) => {
    observer.current?.disconnect();
    if (!element) return;
    observer.current = new ResizeObserver(([entry]) => entry && setWidth(entry.contentRect.width));
    observer.current.observe(element);
    setWidth(element.clientWidth);
  }, []);
  return [watch, width];
}

/** Now, every so often: for words such as "3 minutes ago". */
export function useNow(everySeconds: number): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everySeconds * 1000);
    return () => clearInterval(timer);
  }, [everySeconds]);
  return now;
}
