/** Find a product: suggestions as one types, by words and by meaning (a combobox as the ARIA practices want it). */
import { useEffect, useRef, useState } from "preact/hooks";
import { api, Failure, type Hit } from "./api";
import { useShell } from "./hooks";
import { Picture } from "./picture";

const PAUSE_MS = 120;
type Choice = { kind: "item"; hit: Hit } | { kind: "id"; id: string } | { kind: "text"; text: string };

export function Find() {
  const { t, go, failed, keyed } = useShell();
  const [text, setText] = useState("");
  const [choices, setChoices] = useState<Choice[]>([]);
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const input = useRef<HTMLInputElement>(null);

  useEffect(() => {
    const wanted = text.trim();
    if (!wanted) {
      setChoices([]);
      return;
    }
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const { hits, isId } = await api.suggest(wanted, stop.signal);
        const found: Choice[] = hits.map((hit) => ({ kind: "item", hit }) as const);
        if (isId) found.unshift({ kind: "id", id: wanted });
        setChoices([...found, { kind: "text", text: wanted }]);
        setAt(-1);
      } catch (error) {
        if (error instanceof Failure) failed(error);
      }
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [text, keyed]);

  useEffect(() => {
    const focus = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        input.current?.focus();
      }
    };
    addEventListener("keydown", focus);
    return () => removeEventListener("keydown", focus);
  }, []);

  const choose = (choice: Choice | undefined) => {
    if (!choice) return;
    const start = { view: "explore", why: "", panel: "live" } as const;
    if (choice.kind === "text") go({ ...start, seeds: [], text: choice.text }, true);
    else go({ ...start, seeds: [{ id: choice.kind === "id" ? choice.id : choice.hit.item_id, weight: 1 }], text: "" }, true);
    setText("");
    setOpen(false);
    requestAnimationFrame(() => document.getElementById("results")?.focus({ preventScroll: true }));
  };

  const onKey = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const size = choices.length;
      if (size) setAt((old) => (event.key === "ArrowDown" ? (old + 1) % size : (old <= 0 ? size : old) - 1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      choose(at >= 0 ? choices[at] : text.trim() ? { kind: "text", text: text.trim() } : undefined);
    } else if (event.key === "Escape") {
      if (open && choices.length) setOpen(false);
      else setText("");
    }
  };

  const shown = open && choices.length > 0;
  return (
    <div class="find" role="search">
      <svg class="glass" viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
        <circle cx="8.5" cy="8.5" r="5.5" /><path d="M13 13l5 5" />
      </svg>
      <input ref={input} type="text" role="combobox" aria-label={t("search")} placeholder={t("search")} value={text}
        aria-expanded={shown} aria-controls="suggestions" aria-autocomplete="list" autocomplete="off" spellcheck={false}
        aria-activedescendant={shown && at >= 0 ? `suggestion-${at}` : undefined} enterkeyhint="search"
        onInput={(event) => {
          setText(event.currentTarget.value);
          setOpen(true);
        }}
        onFocus={() => setOpen(true)} onBlur={() => setTimeout(() => setOpen(false), 120)} onKeyDown={onKey} />
      <kbd aria-hidden="true">/</kbd>
      <ul id="suggestions" role="listbox" aria-label={t("search")} hidden={!shown}>
        {shown && choices.map((choice, place) => (
          <li key={choice.kind === "item" ? choice.hit.item_id : choice.kind} id={`suggestion-${place}`} role="option"
            aria-selected={place === at} class={choice.kind}
            onPointerDown={(event) => event.preventDefault()} onClick={() => choose(choice)}>
            {choice.kind === "item" ? (
              <>
                <Picture item={choice.hit.item} size={36} />
                <span>{choice.hit.item.title}</span>
                <small>
                  {choice.hit.item.brand}
                  {choice.hit.item.price != null && ` · ${t.price(choice.hit.item.price, choice.hit.item.currency)}`}
                </small>
              </>
            ) : choice.kind === "id" ? (
              <span>{t("open_id", { id: choice.id })}</span>
            ) : (
              <span>{t("as_text", { text: choice.text })}</span>
            )}
          </li>
        ))}
      </ul>
      <span class="hidden" role="status">{shown ? t("suggestions", { n: choices.length }) : ""}</span>
    </div>
  );
}
