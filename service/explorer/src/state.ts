/** What is shown, as a link says it. Pure: everything here is a function of the address. */
import type { Filter, SimilarRequest } from "./api";
import { service } from "./service";

export const DIMENSIONS = ["content", "lexical", "reviews", "behaviour"] as const;
export type Dimension = (typeof DIMENSIONS)[number];
export type Weights = Record<Dimension, number>;
export const PRESETS = ["substitutes", "complements", "discovery", "same_product"] as const;
export type Preset = (typeof PRESETS)[number];
export const VIEWS = ["explore", "shopper", "trending", "pipeline"] as const;
export type View = (typeof VIEWS)[number];
export const LIMITS = [12, 24, 48, 100, 200] as const;

const NOTHING: Weights = { content: 0, lexical: 0, reviews: 0, behaviour: 0 };

export interface Seed {
  id: string;
  weight: number;
}

export interface Filters {
  inStock: boolean;
  brands: string[];
  categories: string[];
  brandCap: number | null;
  ratio: [number, number] | null;
  variants: boolean;
}

export interface State {
  view: View;
  seeds: Seed[];
  text: string;
  preset: Preset | null;
  /** Null: those of the preset, or the service's. */
  weights: Weights | null;
  filters: Filters;
  limit: number;
  why: string;
  /** A release to compare with; empty: none. */
  beside: string;
  panel: "why" | "live" | "map";
  user: string;
  window: "1h" | "24h" | "7d" | "30d";
}

export const NO_FILTERS: Filters = {
  inStock: false,
  brands: [],
  categories: [],
  brandCap: null,
  ratio: null,
  variants: false,
};

export const START: State = {
  view: "explore",
  seeds: [],
  text: "",
  preset: null,
  weights: null,
  filters: NO_FILTERS,
  limit: 24,
  why: "",
  beside: "",
  panel: "live",
  user: "",
  window: "24h",
};

const number = (text: string | null | undefined): number | null => {
  const value = text ? Number(text) : NaN;
  return Number.isFinite(value) ? value : null;
};

const oneOf = <T extends string>(values: readonly T[], text: string | null): T | null =>
  values.includes(text as T) ? (text as T) : null;

/** The state that an address names; what it cannot mean is left at its start. */
export function parse(query: string): State {
  const given = new URLSearchParams(query);
  const seeds: Seed[] = [];
  for (const text of given.getAll("seed")) {
    const cut = text.lastIndexOf("~");
    const weight = cut < 0 ? 1 : number(text.slice(cut + 1));
    const id = cut < 0 ? text : text.slice(0, cut);
    if (id && weight !== null && !seeds.some((seed) => seed.id === id)) seeds.push({ id, weight });
  }
  const ratio = given.get("ratio")?.split("~").map(number) ?? [];
  const weights = weightsOf(given.get("w"));
  return {
    ...START,
    view: oneOf(VIEWS, given.get("view")) ?? START.view,
    seeds: seeds.slice(0, 50),
    text: given.get("text") ?? "",
    preset: oneOf(PRESETS, given.get("preset")),
    weights,
    filters: {
      inStock: given.get("stock") === "1",
      brands: given.getAll("brand"),
      categories: given.getAll("category"),
      brandCap: number(given.get("cap")),
      ratio: ratio.length === 2 && ratio[0] != null && ratio[1] != null ? [ratio[0], ratio[1]] : null,
      variants: given.get("variants") === "1",
    },
    limit: LIMITS.find((limit) => limit === number(given.get("limit"))) ?? START.limit,
    why: given.get("why") ?? "",
    beside: given.get("beside") ?? "",
    panel: oneOf(["why", "live", "map"] as const, given.get("panel")) ?? START.panel,
    user: given.get("user") ?? "",
    window: oneOf(["1h", "24h", "7d", "30d"] as const, given.get("window")) ?? START.window,
  };
}

function weightsOf(text: string | null): Weights | null {
  if (!text) return null;
  const weights: Weights = { ...NOTHING };
  for (const part of text.split(",")) {
    const [name, value] = part.split(":");
    const dimension = oneOf(DIMENSIONS, name ?? null);
    const weight = number(value);
    if (dimension && weight !== null) weights[dimension] = weight;
  }
  return DIMENSIONS.some((dimension) => weights[dimension] > 0) ? weights : null;
}

/** The address of a state, without what stands at its start anyway. */
export function query(state: State): string {
  const said = new URLSearchParams();
  if (state.view !== START.view) said.set("view", state.view);
  for (const seed of state.seeds) said.append("seed", seed.weight === 1 ? seed.id : `${seed.id}~${seed.weight}`);
  if (state.text) said.set("text", state.text);
  if (state.preset) said.set("preset", state.preset);
  if (state.weights) {
    const weights = state.weights;
    said.set("w", DIMENSIONS.map((name) => `${name}:${weights[name]}`).join(","));
  }
  const { filters } = state;
  if (filters.inStock) said.set("stock", "1");
  for (const brand of filters.brands) said.append("brand", brand);
  for (const category of filters.categories) said.append("category", category);
  if (filters.brandCap) said.set("cap", String(filters.brandCap));
  if (filters.ratio) said.set("ratio", filters.ratio.join("~"));
  if (filters.variants) said.set("variants", "1");
  if (state.limit !== START.limit) said.set("limit", String(state.limit));
  if (state.why) said.set("why", state.why);
  if (state.beside) said.set("beside", state.beside);
  if (state.panel !== START.panel) said.set("panel", state.panel);
  if (state.user) said.set("user", state.user);
  if (state.window !== START.window) said.set("window", state.window);
  const text = said.toString();
  return text ? `?${text}` : "";
}

/** The weights that a query of this state counts with, before evidence. */
export function weighing(state: State): Weights {
  return state.weights ?? { ...NOTHING, ...service.weights[state.preset ?? ""] };
}

/** Whether there is anything to be similar to. */
export function asks(state: State): boolean {
  return state.text !== "" || state.seeds.some((seed) => seed.weight > 0);
}

/** The body of POST /v1/similar. */
export function request(state: State, release?: string): Partial<SimilarRequest> {
  const { filters } = state;
  const filter: Partial<Filter> = {};
  if (filters.inStock) filter.in_stock = true;
  if (filters.brands.length) filter.brand = filters.brands;
  if (filters.categories.length) filter.category = filters.categories;
  if (filters.brandCap) filter.brand_cap = filters.brandCap;
  if (filters.ratio) filter.price_ratio = { min: filters.ratio[0], max: filters.ratio[1] };
  if (filters.variants) filter.group = "any";
  const body: Partial<SimilarRequest> = { limit: state.limit, explain: true };
  if (state.seeds.length) body.seeds = state.seeds.map((seed) => ({ item_id: seed.id, weight: seed.weight }));
  if (state.text) body.text = state.text;
  if (state.preset) body.preset = state.preset;
  if (state.weights) body.weights = positive(state.weights);
  if (Object.keys(filter).length) body.filter = filter as Filter;
  if (release) body.release_id = release;
  return body;
}

/** A dimension of weight 0 is not asked: it would only cost a search. */
function positive(weights: Weights): Partial<Weights> {
  return Object.fromEntries(DIMENSIONS.map((name) => [name, weights[name]]).filter(([, weight]) => weight !== 0));
}

/** The seeds with one more, or with another weight; weight 0 takes it out. */
export function pinned(seeds: Seed[], id: string, weight: number): Seed[] {
  if (weight === 0) return seeds.filter((seed) => seed.id !== id);
  return seeds.some((seed) => seed.id === id)
    ? seeds.map((seed) => (seed.id === id ? { id, weight } : seed))
    : [...seeds, { id, weight }];
}
