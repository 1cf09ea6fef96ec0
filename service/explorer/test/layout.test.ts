import { expect, test } from "vitest";
import { CARD_HEIGHT, GAP, grid, moves, place, visible } from "../src/layout";

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
    const [first, last] = visible(top, top + 800, form, 200);
    for (let rank = 0; rank < 200; rank++) {
      const { y } = place(rank, form);
      if (y < top + 800 && y + CARD_HEIGHT > top) expect(rank >= first && rank < last).toBe(true);
    }
    expect(last - first).toBeLessThan(60);
  }
});

test("who rose, who fell, who is new", () => {
  const found = moves(["a", "b", "c", "d"], ["c", "b", "x", "a"]);
  expect([...found]).toEqual([["c", 2], ["x", "new"], ["a", -3]]);
});

test("the first list has not moved", () => {
  expect(moves([], ["a", "b"]).size).toBe(0);
});
