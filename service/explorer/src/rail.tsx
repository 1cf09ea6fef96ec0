/** What is asked: seeds and what each weighs, weights of the dimensions, preset, filters. */
import { useMemo } from "preact/hooks";
import type { Hit, ItemView } from "./api";
import { useNow, useShell } from "./hooks";
import { Icon } from "./icons";
import { Dot, Facts, Opinions } from "./parts";
import { Picture } from "./picture";
import {
  DIMENSIONS, LIMITS, NO_FILTERS, pinned, PRESETS, weighing, type Dimension, type Filters,
} from "./state";

export function Seeds() {
  const { t, state, go, known } = useShell();
  const now = useNow(2);
  return (
    <section class="block" aria-labelledby="seeds">
      <h2 id="seeds">{t("seeds")}</h2>
      <ul class="seeds">
        {state.text && (
          <li>
            <div class="seedhead">
              <span class="quote" aria-hidden="true">“</span>
              <b>{state.text}</b>
              <button class="tool" aria-label={t("remove", { title: state.text })} onClick={() => go({ text: "" }, true)}><Icon name="close" /></button>
            </div>
          </li>
        )}
        {state.seeds.map((seed, at) => {
          const item = known.get(seed.id);
          const title = item?.title ?? seed.id;
          return (
            <li key={seed.id} class={seed.weight < 0 ? "minus" : ""}>
              <div class="seedhead">
                {item && <Picture item={item} size={40} />}
                <div>
                  <b>{title}</b>
                  {item && <Facts item={item as never} />}
                </div>
                {(state.seeds.length > 1 || state.text) && (
                  <button class="tool" aria-label={t("remove", { title })}
                    onClick={() => go({ seeds: pinned(state.seeds, seed.id, 0) }, true)}><Icon name="close" /></button>
                )}
              </div>
              {state.seeds.length > 1 && (
                <label class="slim">
                  <span>{t("weight")}</span>
                  <input type="range" min="-1" max="2" step="0.1" value={seed.weight}
                    aria-label={t("weight_of", { title })}
                    onInput={(event) => {
                      const weight = Number(event.currentTarget.value);
                      go({ seeds: state.seeds.map((one) => (one.id === seed.id ? { ...one, weight } : one)) });
                    }} />
                  <output>{t.number(seed.weight, 1)}</output>
                </label>
              )}
              {item?.opinions && item.opinions.length > 0 && (
                <div class="said">
                  <small>{t("reviewers_say")}</small>
                  <Opinions terms={item.opinions} />
                </div>
              )}
              {at === 0 && item && <Ages item={item} now={now} />}
            </li>
          );
        })}
      </ul>
    </section>
  );
}

/** How fresh each dimension of the seed is, and of which version. */
function Ages({ item, now }: { item: ItemView; now: number }) {
  const { t } = useShell();
  return (
    <ul class="ages">
      {DIMENSIONS.map((name) => {
        const age = item.dimensions?.[name];
        return (
          <li key={name} class={age ? "" : "absent"}>
            <Dot name={name} />
            {t(name)}
            <small>
              {age ? t.ago(age.updated_at, now) : t("absent")}
              {age && <code title={age.fingerprint}>{age.fingerprint.slice(0, 6)}</code>}
            </small>
          </li>
        );
      })}
    </ul>
  );
}

export function Sliders() {
  const { t, state, go } = useShell();
  const weights = weighing(state);
  const set = (name: Dimension, value: number) => {
    const next = { ...weights, [name]: value };
    if (DIMENSIONS.some((each) => next[each] > 0)) go({ weights: next });
  };
  return (
    <section class="block" aria-labelledby="weights">
      <h2 id="weights">
        {t("weights")}
        {state.weights && <button class="link" onClick={() => go({ weights: null })}>{t("weights_reset")}</button>}
      </h2>
      {DIMENSIONS.map((name) => (
        <div class={`slider ${name}`} key={name}>
          <label for={`w-${name}`}>
            <Dot name={name} />
            {t(name)}
          </label>
          <output for={`w-${name}`}>{t.number(weights[name], 1)}</output>
          <input id={`w-${name}`} type="range" min="0" max="3" step="0.1" value={weights[name]}
            style={{ "--part": `${(weights[name] / 3) * 100}%` }} aria-describedby={`h-${name}`}
            onInput={(event) => set(name, Number(event.currentTarget.value))} />
          <small id={`h-${name}`}>{t(`${name}_hint`)}</small>
        </div>
      ))}
    </section>
  );
}

export function Presets() {
  const { t, state, go } = useShell();
  return (
    <section class="block" aria-labelledby="presets">
      <h2 id="presets">{t("preset")}</h2>
      <div class="chips" role="group" aria-labelledby="presets">
        {[null, ...PRESETS].map((preset) => (
          <button key={preset ?? "none"} class="chip" aria-pressed={state.preset === preset}
            onClick={() => go({ preset, weights: null })}>
            {preset ? t(preset) : t("preset_none")}
          </button>
        ))}
      </div>
    </section>
  );
}

const BANDS = [
  ["any_price", null],
  ["band_close", [0.8, 1.25]],
  ["band_near", [0.5, 2]],
  ["band_cheaper", [0.01, 0.99]],
  ["band_dearer", [1.01, 100]],
] as const;

export function FilterBlock({ hits }: { hits: Hit[] }) {
  const { t, state, go } = useShell();
  const { filters } = state;
  const set = (change: Partial<Filters>) => go({ filters: { ...filters, ...change } });
  const brands = useMemo(() => common(hits.map((hit) => hit.item.brand ?? ""), filters.brands), [hits, filters]);
  const shelves = useMemo(
    () => common(hits.map((hit) => (hit.item.category ?? []).join(" > ")), filters.categories),
    [hits, filters],
  );
  const some = JSON.stringify(filters) !== JSON.stringify(NO_FILTERS);
  const band = BANDS.find(([, ratio]) => JSON.stringify(ratio) === JSON.stringify(filters.ratio));
  return (
    <section class="block" aria-labelledby="filters">
      <h2 id="filters">
        {t("filters")}
        {some && <button class="link" onClick={() => go({ filters: NO_FILTERS })}>{t("clear")}</button>}
      </h2>
      <label class="check">
        <input type="checkbox" checked={filters.inStock} onChange={(e) => set({ inStock: e.currentTarget.checked })} />
        {t("in_stock")}
      </label>
      <label class="check">
        <input type="checkbox" checked={filters.variants} onChange={(e) => set({ variants: e.currentTarget.checked })} />
        {t("variants")}
      </label>
      <label class="field">
        <span>{t("price_band")}</span>
        <select value={band?.[0] ?? "any_price"}
          onChange={(event) => {
            const ratio = BANDS.find(([name]) => name === event.currentTarget.value)?.[1] ?? null;
            set({ ratio: ratio ? [ratio[0], ratio[1]] : null });
          }}>
          {BANDS.map(([name]) => <option key={name} value={name}>{t(name)}</option>)}
        </select>
      </label>
      <label class="field">
        <span>{t("brand_cap")}</span>
        <select value={String(filters.brandCap ?? "")}
          onChange={(event) => set({ brandCap: Number(event.currentTarget.value) || null })}>
          <option value="">{t("no_cap")}</option>
          {[1, 2, 3, 5].map((cap) => <option key={cap} value={cap}>{cap}</option>)}
        </select>
      </label>
      <label class="field">
        <span>{t("show")}</span>
        <select value={state.limit} onChange={(event) => go({ limit: Number(event.currentTarget.value) })}>
          {LIMITS.map((limit) => <option key={limit} value={limit}>{limit}</option>)}
        </select>
      </label>
      <Choices label={t("category")} values={shelves} chosen={filters.categories}
        choose={(categories) => set({ categories })} shown={(value) => value.split(" > ").at(-1) ?? value} />
      <Choices label={t("brand")} values={brands} chosen={filters.brands} choose={(chosen) => set({ brands: chosen })} />
    </section>
  );
}

function Choices({ label, values, chosen, choose, shown = (value) => value }: {
  label: string;
  values: string[];
  chosen: string[];
  choose: (values: string[]) => void;
  shown?: (value: string) => string;
}) {
  if (!values.length) return null;
  return (
    <div class="choices" role="group" aria-label={label}>
      <span>{label}</span>
      <div class="chips">
        {values.map((value) => {
          const on = chosen.includes(value);
          return (
            <button key={value} class="chip" aria-pressed={on} title={value}
              onClick={() => choose(on ? chosen.filter((one) => one !== value) : [...chosen, value])}>
              {shown(value)}
            </button>
          );
        })}
      </div>
    </div>
  );
}

/** The most frequent values, those chosen always among them. */
function common(values: string[], chosen: string[]): string[] {
  const counts = new Map<string, number>(chosen.map((value) => [value, Infinity]));
  for (const value of values) if (value) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, 8).map(([value]) => value);
}

