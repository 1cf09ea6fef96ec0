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

/** Ranks whose cards are worth having: those between `top` and `bottom`, one screen more on either side. */
export function visible(top: number, bottom: number, grid: Grid, count: number): [number, number] {
  const row = CARD_HEIGHT + GAP;
  const spare = Math.max(row, bottom - top) / 2;
  const first = Math.floor(Math.max(0, top - spare) / row) * grid.columns;
  const last = Math.ceil(Math.max(0, bottom + spare) / row) * grid.columns;
  return [Math.min(first, count), Math.min(Math.max(last, 0), count)];
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
