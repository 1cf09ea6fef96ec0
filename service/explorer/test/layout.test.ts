import { expect, test } from "vitest";
import { AT_ONCE, CARD_HEIGHT, GAP, grid, moves, NOWHERE, place, turn, visible } from "../src/layout";

test("cards fill the width, and there is always one column", () => {
  for (const width of [0, 200, 320, 700, 1000, 1900]) {
    const found = grid(width, 7);
    expect(found.columns).toBeGreaterThanOrEqual(1);
    expect(found.columns * found.width + (found.columns - 1) * GAP).toBeCloseTo(width, 6);
    expect(found.height).toBe(Math.ceil(7 / found.columns) * (CARD_HEIGHT + GAP) - GAP);
  }
  expect(grid(1000, 0).height).toBe(0);
});

test("no two cards stand in the same place", () => {
  const form = grid(1000, 50);
  const places = Array.from({ length: 50 }, (_, rank) => place(rank, form));
  expect(new Set(places.map(({ x, y }) => `${x} ${y}`)).size).toBe(50);
});

test("every card on screen is among the visible, and not all of two hundred are", () => {
  const form = grid(1000, 200);
  for (let top = -200; top < form.height; top += 137) {
    const { from, to, first, last } = visible(top, top + 800, form, 200);
    for (let rank = 0; rank < 200; rank++) {
      const { y } = place(rank, form);
      if (y < top + 800 && y + CARD_HEIGHT > top) expect(rank >= from && rank < to).toBe(true);
    }
    expect(first <= from && to <= last).toBe(true);
    expect(last - first).toBeLessThan(45);
  }
});

test("cards are made a few in a frame, those on the screen first, and all of them in the end", () => {
  const ids = Array.from({ length: 200 }, (_, rank) => `i${rank}`);
  const range = { from: 60, to: 81, first: 51, last: 90 };
  let drawn = new Set(["i0", "i70"]);
  const steps: number[][] = [];
  for (let more = true; more; ) {
    const now = turn(ids, range, 3, drawn);
    expect(now.ranks.filter((rank) => !drawn.has(`i${rank}`) && rank !== 3).length).toBeLessThanOrEqual(AT_ONCE);
    drawn = new Set(now.ranks.map((rank) => `i${rank}`));
    steps.push(now.ranks);
    more = now.more;
  }
  expect(steps[0]).toEqual([3, 60, 61, 62, 63, 70]);
  expect(steps.at(-1)).toEqual([3, ...Array.from({ length: 39 }, (_, at) => 51 + at)]);
  const outside = steps.findIndex((ranks) => ranks.some((rank) => rank !== 3 && (rank < 60 || rank >= 81)));
  for (let rank = 60; rank < 81; rank++) expect(steps[outside]).toContain(rank);
});

test("nothing is drawn where nothing is, but the one that the keyboard stands on", () => {
  expect(turn([], NOWHERE, -1, new Set())).toEqual({ ranks: [], more: false });
  expect(turn(["a", "b"], NOWHERE, 1, new Set())).toEqual({ ranks: [1], more: false });
  expect(turn(["a"], { from: 0, to: 3, first: 0, last: 3 }, 0, new Set(["gone"]))).toEqual({ ranks: [0], more: false });
});

test("who rose, who fell, who is new", () => {
  const found = moves(["a", "b", "c", "d"], ["c", "b", "x", "a"]);
  expect([...found]).toEqual([["c", 2], ["x", "new"], ["a", -3]]);
});

test("the first list has not moved", () => {
  expect(moves([], ["a", "b"]).size).toBe(0);
});
