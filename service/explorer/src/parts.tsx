/** Small parts: empty, loading and error states, bars, tabs. */
import type { ComponentChildren } from "preact";
import type { Failure, HitItem } from "./api";
import { useShell, useWords } from "./hooks";
import { DIMENSIONS, type Dimension } from "./state";

const TENDENCIES = ["good", "mixed", "bad"] as const;
const SIGNS: Record<string, string> = { good: "+", mixed: "±", bad: "–" };

export function Notice({ title, children, tone = "calm", action }: {
  title: string;
  children?: ComponentChildren;
  tone?: "calm" | "bad";
  action?: ComponentChildren;
}) {
  return (
    <div class={`notice ${tone}`} role={tone === "bad" ? "alert" : undefined}>
      <svg viewBox="0 0 64 40" width="64" height="40" aria-hidden="true">
        <circle class="a" cx="22" cy="22" r="13" />
        <circle class="b" cx="40" cy="18" r="9" />
        <circle class="c" cx="47" cy="31" r="4" />
      </svg>
      <h2>{title}</h2>
      {children}
      {action}
    </div>
  );
}

export function Failed({ failure, again }: { failure: Failure; again: () => void }) {
  const { t, askKey } = useShell();
  const said =
    failure.status === 410 ? t("error_gone")
    : failure.status === 404 ? t("error_unknown")
    : failure.status === 409 ? t("error_wait")
    : failure.status === 403 ? t("forbidden", { detail: failure.message })
    : failure.status === 503 ? t("error_busy", { detail: failure.message })
    : failure.status === 0 ? t("offline")
    : failure.message;
  return (
    <Notice title={t("error_title")} tone="bad"
      action={failure.status === 401 || failure.status === 403
        ? <button class="solid" onClick={() => askKey(failure)}>{t("key")}</button>
        : <button class="solid" onClick={again}>{t("retry")}</button>}>
      <p>{said}</p>
    </Notice>
  );
}

export function Skeletons({ count }: { count: number }) {
  const { t } = useShell();
  return (
    <div class="skeletons" role="status" aria-label={t("loading")}>
      {Array.from({ length: count }, (_, at) => <div class="skeleton" key={at} />)}
    </div>
  );
}

/** How a score is made up: one part for each dimension, as long as its share of it. */
export function ShareBar({ score, shares }: { score: number; shares: Record<string, number> | undefined }) {
  const whole = Math.max(0, Math.min(1, score));
  const sizes = [...DIMENSIONS, "relations"].map((name) => [name, Math.max(0, shares?.[name] ?? 0)] as const);
  const total = sizes.reduce((sum, [, size]) => sum + size, 0) || 1;
  return (
    <div class="sharebar" aria-hidden="true">
      {sizes.map(([name, size]) =>
        size > 0 ? <i key={name} class={name} style={{ width: `${(whole * size * 100) / total}%` }} /> : null)}
    </div>
  );
}

export function Dot({ name }: { name: Dimension | "relations" }) {
  return <i class={`dot ${name}`} aria-hidden="true" />;
}

export function Facts({ item }: { item: HitItem }) {
  const t = useWords();
  return (
    <span class="facts">
      {item.brand && <span class="brand">{item.brand}</span>}
      {item.price != null && <span class="price">{t.price(item.price, item.currency)}</span>}
      {item.in_stock != null && (
        <span class={item.in_stock ? "stock yes" : "stock no"}>{t(item.in_stock ? "stock_yes" : "stock_no")}</span>
      )}
      {item.rating && (
        <span class="stars" title={t("rating", { mean: t.number(item.rating.mean, 1), n: item.rating.count })}>
          <span aria-hidden="true">★ </span>
          {t.number(item.rating.mean, 1)}
          <span class="hidden"> / 5</span>
        </span>
      )}
    </span>
  );
}

/** What reviewers come to about an item's aspects, the good ones first. */
export function Opinions({ terms }: { terms: readonly string[] }) {
  const t = useWords();
  const said = terms.map((term) => {
    const at = term.lastIndexOf(": ");
    return [term.slice(0, at), term.slice(at + 2)] as const;
  });
  return (
    <ul class="opinions">
      {TENDENCIES.flatMap((tendency) => said.filter(([, one]) => one === tendency)).map(([aspect, tendency]) => (
        <li key={aspect} class={`chip ${tendency}`}>
          <span aria-hidden="true">{SIGNS[tendency]} </span>
          {aspect}
          <span class="hidden"> {t(`opinion_${tendency as "good" | "mixed" | "bad"}`)}</span>
        </li>
      ))}
    </ul>
  );
}

/** Tabs as the ARIA practices want them: arrows move, one tab stop. */
export function Tabs<T extends string>({ label, tabs, chosen, choose, panel }: {
  label: string;
  tabs: readonly (readonly [T, string])[];
  chosen: T;
  choose: (tab: T) => void;
  panel: string;
}) {
  const move = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by) return;
    event.preventDefault();
    const at = tabs.findIndex(([name]) => name === chosen);
    const next = tabs[(at + by + tabs.length) % tabs.length];
    if (!next) return;
    choose(next[0]);
    const list = event.currentTarget as HTMLElement;
    requestAnimationFrame(() => list.querySelector<HTMLElement>('[aria-selected="true"]')?.focus());
  };
  return (
    <div class="tabs" role="tablist" aria-label={label} onKeyDown={move}>
      {tabs.map(([name, text]) => (
        <button key={name} role="tab" id={`${panel}-${name}`} aria-selected={name === chosen} aria-controls={panel}
          tabIndex={name === chosen ? 0 : -1} onClick={() => choose(name)}>
          {text}
        </button>
      ))}
    </div>
  );
}
