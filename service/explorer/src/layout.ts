/** Where each card of a list stands, and how it got there. Pure: heights are fixed, so nothing is measured. */
export const CARD_HEIGHT = 138;
export const GAP = 12;
const LEAST_WIDTH = 290;

export interface Grid {
  columns: number;
  width: number;
  height: number;
}

export interface Place {
  x: number;
  y: number;
}

export function grid(width: number, count: number): Grid {
  const columns = Math.max(1, Math.floor((width + GAP) / (LEAST_WIDTH + GAP)));
  const rows = Math.ceil(count / columns);
  return {
    columns,
    width: Math.max(0, (width - GAP * (columns - 1)) / columns),
    height: Math.max(0, rows * (CARD_HEIGHT + GAP) - GAP),
  };
}

export function place(rank: number, grid: Grid): Place {
  return {
    x: (rank % grid.columns) * (grid.width + GAP),
    y: Math.floor(rank / grid.columns) * (CARD_HEIGHT + GAP),
  };
}

/** Ranks on the screen (`from`, up to `to`), and those worth having around it (`first`, up to `last`). */
export interface Range {
  from: number;
  to: number;
  first: number;
  last: number;
}

export const NOWHERE: Range = { from: 0, to: 0, first: 0, last: 0 };

export function same(one: Range, other: Range): boolean {
  return one.from === other.from && one.to === other.to && one.first === other.first && one.last === other.last;
}

/** What lies between `top` and `bottom`, and a third of a screen more on either side. */
export function visible(top: number, bottom: number, grid: Grid, count: number): Range {
  const row = CARD_HEIGHT + GAP;
  const spare = Math.max(row, (bottom - top) / 3);
  const above = (y: number) => Math.min(count, Math.floor(Math.max(0, y) / row) * grid.columns);
  const below = (y: number) => Math.min(count, Math.max(0, Math.ceil(y / row)) * grid.columns);
  return { from: above(top), to: below(bottom), first: above(top - spare), last: below(bottom + spare) };
}

/** Cards made in one frame: making one costs some milliseconds of a slow processor, and a frame has 16. */
export const AT_ONCE = 4;

/**
 * Which ranks to draw now, in order: those of the range that are drawn already, `always`, and of the others so many,
 * those on the screen first. `more`: some are left for the next frame.
 */
export function turn(
  ids: readonly string[], range: Range, always: number, drawn: ReadonlySet<string>,
): { ranks: number[]; more: boolean } {
  const ranks: number[] = [];
  let left = AT_ONCE;
  let more = false;
  const take = (start: number, end: number) => {
    for (let rank = start; rank < Math.min(end, ids.length); rank++) {
      if (rank === always || drawn.has(ids[rank] ?? "")) ranks.push(rank);
      else if (left > 0) {
        left -= 1;
        ranks.push(rank);
      } else more = true;
    }
  };
  take(range.from, range.to);
  take(range.first, range.from);
  take(range.to, range.last);
  if (always >= 0 && always < ids.length && (always < range.first || always >= range.last)) ranks.push(always);
  return { ranks: ranks.sort((a, b) => a - b), more };
}

export type Move = number | "new";

/** By how many ranks each item rose (> 0) or fell (< 0); "new" for one that was not there. */
export function moves(before: readonly string[], after: readonly string[]): Map<string, Move> {
  const ranks = new Map(before.map((id, rank) => [id, rank]));
  const found = new Map<string, Move>();
  if (before.length === 0) return found;
  after.forEach((id, rank) => {
    const was = ranks.get(id);
    if (was === undefined) found.set(id, "new");
    else if (was !== rank) found.set(id, was - rank);
  });
  return found;
}
