/** The page around its views: address, words, theme, key, changes that arrive, and whether anybody answers. */
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, Failure, hasKey, useKey, type ItemView, type Update } from "./api";
import { Explore } from "./explore";
import { Find } from "./find";
import { ShellContext, WordsContext, type Shell } from "./hooks";
import { words, type Language } from "./i18n";
import { KeyDialog } from "./keydialog";
import { Pipeline } from "./pipeline";
import { service } from "./service";
import { Shopper } from "./shopper";
import { parse, query, START, VIEWS, type State } from "./state";
import { follow, type Standing } from "./stream";
import { Trending } from "./trending";

/** Changes that are listed, and how often at most the page asks again because of them. */
const LISTED = 60;
const PULSE_MS = 400;

export function App() {
  const [state, setState] = useState<State>(() => parse(location.search));
  const [language, setLanguage] = useState<Language>(() => kept("language", ["en", "zh"]) ?? preferred());
  const [theme, setTheme] = useState<"light" | "dark">(() => kept("theme", ["light", "dark"]) ?? system());
  const [keyed, setKeyed] = useState(0);
  const [asking, setAsking] = useState<{ failure: Failure | null } | null>(null);
  const [offline, setOffline] = useState(false);
  const [said, setSaid] = useState("");
  const [updates, setUpdates] = useState<Update[]>([]);
  const [passedOver, setPassedOver] = useState(0);
  const [pulse, setPulse] = useState(0);
  const [standing, setStanding] = useState<Standing>({ open: false, failure: null });
  const [known, setKnown] = useState<Map<string, ItemView>>(new Map());
  const t = useMemo(() => words(language), [language]);

  const go = useCallback((change: Partial<State>, remember = false) => {
    setState((old) => {
      const next = { ...old, ...change };
      const address = location.pathname + query(next);
      if (remember) now(address);
      else later(address);
      return next;
    });
  }, []);

  useEffect(() => {
    const back = () => setState(parse(location.search));
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);

  useEffect(() => {
    document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
    keep("language", language);
  }, [language]);
  useEffect(() => {
    document.documentElement.dataset["theme"] = theme;
    keep("theme", theme);
  }, [theme]);

  const askKey = useCallback((failure?: Failure) => setAsking((old) => old ?? { failure: failure ?? null }), []);
  useEffect(() => {
    if (service.keys && !hasKey()) askKey();
  }, []);

  const failed = useCallback((failure: Failure) => {
    if (failure.status === 0) setOffline(true);
    if (failure.status === 401) askKey(hasKey() ? failure : undefined);
  }, []);
  const answered = useCallback(() => setOffline(false), []);

  // Changes arrive one by one or by hundreds; what is on screen is asked again a few times a second at most.
  const waiting = useRef<number | null>(null);
  const mute = service.keys && !hasKey();
  useEffect(() => {
    if (mute) return;
    return follow(
      (message) => {
        setUpdates((old) => [...[...message.updates].reverse(), ...old].slice(0, LISTED));
        setPassedOver((old) => old + (message.passed_over ?? 0));
        waiting.current ??= window.setTimeout(() => {
          waiting.current = null;
          setPulse((n) => n + 1);
        }, pulse_ms());
      },
      (now) => setStanding(now),
    );
  }, [keyed, mute]);
  const lastPulse = useRef(0);
  function pulse_ms(): number {
    const wait = Math.max(0, lastPulse.current + PULSE_MS - Date.now());
    lastPulse.current = Date.now() + wait;
    return wait;
  }

  // Titles and ages of the seeds.
  const ids = state.seeds.map((seed) => seed.id).join("\n");
  useEffect(() => {
    if (!ids || mute) return;
    let gone = false;
    for (const id of ids.split("\n")) {
      api.item(id).then(
        (item) => !gone && setKnown((old) => new Map(old).set(id, item)),
        (error: unknown) => !gone && error instanceof Failure && failed(error),
      );
    }
    return () => {
      gone = true;
    };
  }, [ids, pulse, keyed, mute]);

  const shell: Shell = {
    t, state, go, known, updates, passedOver, standing, pulse, keyed, askKey, offline, failed, answered, say: setSaid,
  };
  const view = state.view;
  return (
    <WordsContext.Provider value={t}><ShellContext.Provider value={shell}>
      <a class="skip" href="#results">{t("skip")}</a>
      <header class="top">
        <a class="mark" href="/" aria-label={`simstream. ${t("tagline")}`} onClick={(event) => {
          event.preventDefault();
          go(START, true);
        }}>
          <img src="/explorer/icon.svg" width="26" height="26" alt="" />
          <span>simstream</span>
        </a>
        <Find />
        <nav aria-label={t("views")}>
          {VIEWS.map((name) => (
            <a key={name} href={`/${query({ ...state, view: name })}`} aria-current={name === view ? "page" : undefined}
              onClick={(event) => {
                event.preventDefault();
                go({ view: name }, true);
              }}>
              {t(name)}
            </a>
          ))}
        </nav>
        <div class="switches">
          <button class="plain" lang={language === "en" ? "zh-CN" : "en"}
            onClick={() => setLanguage(language === "en" ? "zh" : "en")}>{t("language")}</button>
          <button class="plain" onClick={() => setTheme(theme === "dark" ? "light" : "dark")}>
            {t(theme === "dark" ? "theme_light" : "theme_dark")}
          </button>
          {service.keys && (
            <button class="plain" onClick={() => askKey()}>{t("key")}</button>
          )}
        </div>
      </header>
      {offline && <p class="offline" role="alert">{t("offline")}</p>}
      <main>
        {mute ? null : view === "explore" ? <Explore /> : view === "shopper" ? <Shopper />
          : view === "trending" ? <Trending /> : <Pipeline />}
      </main>
      <p class="hidden" role="status" aria-live="polite">{said}</p>
      {asking && (
        <KeyDialog failure={asking.failure} later={() => setAsking(null)}
          use={(key) => {
            useKey(key);
            setAsking(null);
            setKeyed((n) => n + 1);
          }} />
      )}
    </ShellContext.Provider></WordsContext.Provider>
  );
}

/** A slider moves many times a second, and browsers refuse an address that changes as often. */
let timer: ReturnType<typeof setTimeout> | undefined;
function now(address: string): void {
  clearTimeout(timer);
  history.pushState(null, "", address);
}

function later(address: string): void {
  clearTimeout(timer);
  timer = setTimeout(() => history.replaceState(null, "", address), 150);
}

function kept<T extends string>(name: string, values: readonly T[]): T | null {
  try {
    const value = localStorage.getItem(`simstream.${name}`);
    return values.includes(value as T) ? (value as T) : null;
  } catch {
    return null;
  }
}

function keep(name: string, value: string): void {
  try {
    localStorage.setItem(`simstream.${name}`, value);
  } catch {
    // Not allowed here: the choice lasts as long as the page.
  }
}

function preferred(): Language {
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

function system(): "light" | "dark" {
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}
