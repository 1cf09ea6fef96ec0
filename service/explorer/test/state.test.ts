import { expect, test } from "vitest";
import { service } from "../src/service";
import { asks, NO_FILTERS, parse, pinned, query, request, START, weighing, type State } from "../src/state";

const RICH: State = {
  ...START,
  seeds: [{ id: "B 00/X", weight: 1 }, { id: "a~b", weight: -0.5 }],
  text: "trail & road",
  preset: "substitutes",
  weights: { content: 1, lexical: 0, reviews: 0.5, behaviour: 2.2 },
  filters: { inStock: true, brands: ["A", "B, C"], categories: ["Sport > Shoes"], brandCap: 3, ratio: [0.5, 2], variants: true },
  limit: 200,
  why: "B00Y",
  beside: "other",
  panel: "map",
  user: "u 1",
  window: "1h",
  view: "trending",
};

test("a link says everything that is shown", () => {
  expect(parse(query(RICH))).toEqual(RICH);
});

test("what stands at its start is not in the link", () => {
  expect(query(START)).toBe("");
  expect(query({ ...START, seeds: [{ id: "x", weight: 1 }] })).toBe("?seed=x");
});

test("a link that makes no sense shows the start, not an error", () => {
  const wild = "?view=nope&seed=&seed=x~abc&w=content:-1&limit=7&ratio=1&panel=&window=2h&cap=NaN&preset=toString";
  expect(parse(wild)).toEqual(START);
});

test("the same seed twice is one seed", () => {
  expect(parse("?seed=x&seed=x~-1").seeds).toEqual([{ id: "x", weight: 1 }]);
});

test("a request has what was chosen and nothing else", () => {
  expect(request({ ...START, seeds: [{ id: "x", weight: 1 }] })).toEqual({
    limit: 24,
    explain: true,
    seeds: [{ item_id: "x", weight: 1 }],
  });
  expect(request(RICH, "candidate")).toEqual({
    limit: 200,
    explain: true,
    seeds: [{ item_id: "B 00/X", weight: 1 }, { item_id: "a~b", weight: -0.5 }],
    text: "trail & road",
    preset: "substitutes",
    weights: { content: 1, reviews: 0.5, behaviour: 2.2 },
    filter: {
      in_stock: true, brand: ["A", "B, C"], category: ["Sport > Shoes"], brand_cap: 3,
      price_ratio: { min: 0.5, max: 2 }, group: "any",
    },
    release_id: "candidate",
  });
});

test("own weights go before the preset's, and those before the service's", () => {
  service.weights = { "": { content: 1, lexical: 1.5 }, complements: { behaviour: 2 } };
  expect(weighing(START)).toEqual({ content: 1, lexical: 1.5, reviews: 0, behaviour: 0 });
  expect(weighing({ ...START, preset: "complements" })).toEqual({ content: 0, lexical: 0, reviews: 0, behaviour: 2 });
  expect(weighing(RICH)).toEqual(RICH.weights);
});

test("seeds against something alone ask nothing", () => {
  expect(asks({ ...START, seeds: [{ id: "x", weight: -1 }] })).toBe(false);
  expect(asks({ ...START, seeds: [{ id: "x", weight: -1 }, { id: "y", weight: 1 }] })).toBe(true);
  expect(asks({ ...START, text: "shoes", filters: NO_FILTERS })).toBe(true);
});

test("a pin is added, changed and taken out", () => {
  const one = pinned([], "x", 1);
  expect(pinned(one, "y", -0.5)).toEqual([{ id: "x", weight: 1 }, { id: "y", weight: -0.5 }]);
  expect(pinned(one, "x", -0.5)).toEqual([{ id: "x", weight: -0.5 }]);
  expect(pinned(one, "x", 0)).toEqual([]);
});
