/** Neighbours as cards. Only those near the screen exist; where each stands is computed, and moving is animated. */
import { memo } from "preact/compat";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Hit } from "./api";
import { useWidth, useWords } from "./hooks";
import { Icon } from "./icons";
import { CARD_HEIGHT, grid, moves, NOWHERE, place, same, turn, visible, type Move, type Place, type Range } from "./layout";
import { Facts, ShareBar } from "./parts";
import { Picture } from "./picture";

const MOVE_MS = 420;
/** How long a card says that it has moved. */
const SAID_MS = 6000;

export interface CardActions {
  why(id: string): void;
  pin(id: string, weight: number): void;
  open(id: string): void;
}

export function Cards({ hits, label, chosen, pins, actions, told }: {
  hits: Hit[];
  label: string;
  chosen: string;
  pins: ReadonlyMap<string, number>;
  actions: CardActions;
  told?: (up: number, down: number, fresh: number) => void;
}) {
  const [watch, width] = useWidth();
  const list = useRef<HTMLOListElement | null>(null);
  const form = useMemo(() => grid(width, hits.length), [width, hits.length]);
  const [range, setRange] = useState<Range>(NOWHERE);
  const drawn = useRef(new Set<string>());
  const [active, setActive] = useState(0);
  const focusNext = useRef(false);

  const before = useRef<string[]>([]);
  const stood = useRef(new Map<string, Place>());
  const moved = useRef<{ moves: Map<string, Move>; until: number }>({ moves: new Map(), until: 0 });
  const [, settle] = useState(0);
  const ids = useMemo(() => hits.map((hit) => hit.item_id), [hits]);
  if (before.current !== ids) {
    const found = moves(before.current, ids);
    if (found.size) moved.current = { moves: found, until: Date.now() + SAID_MS };
  }
  const shownMoves = Date.now() < moved.current.until ? moved.current.moves : new Map<string, Move>();

  useEffect(() => {
    const said = moved.current;
    if (before.current !== ids) {
      before.current = ids;
      if (said.moves.size && told) {
        const all = [...said.moves.values()];
        told(
          all.filter((move) => move !== "new" && move > 0).length,
          all.filter((move) => move !== "new" && move < 0).length,
          all.filter((move) => move === "new").length,
        );
      }
    }
    const left = said.until - Date.now();
    if (left <= 0) return;
    const timer = setTimeout(() => settle((n) => n + 1), left + 20);
    return () => clearTimeout(timer);
  }, [ids]);

  useEffect(() => {
    let asked = 0;
    const look = () => {
      asked = 0;
      const box = list.current?.getBoundingClientRect();
      if (!box) return;
      const next = visible(-box.top, innerHeight - box.top, form, hits.length);
      setRange((old) => (same(old, next) ? old : next));
    };
    const later = () => {
      asked ||= requestAnimationFrame(look);
    };
    look();
    addEventListener("scroll", later, { passive: true, capture: true });
    addEventListener("resize", later);
    return () => {
      cancelAnimationFrame(asked);
      removeEventListener("scroll", later, { capture: true });
      removeEventListener("resize", later);
    };
  }, [form, hits.length]);

  // First, Last, Invert, Play: both ends are known, so nothing is measured and nothing is laid out twice.
  useLayoutEffect(() => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const now = new Map<string, Place>();
    const { first, last } = range;
    ids.forEach((id, rank) => {
      const to = place(rank, form);
      now.set(id, to);
      if (still || rank < first || rank >= last || !drawn.current.has(id)) return;
      const from = stood.current.get(id);
      const card = list.current?.querySelector<HTMLElement>(`[data-id="${CSS.escape(id)}"]`);
      if (!card) return;
      if (from && (from.x !== to.x || from.y !== to.y)) {
        card.animate(
          [{ transform: `translate(${from.x}px, ${from.y}px)` }, { transform: `translate(${to.x}px, ${to.y}px)` }],
          { duration: MOVE_MS, easing: "cubic-bezier(.2,.7,.2,1)" },
        );
      } else if (!from && stood.current.size) {
        card.animate([{ opacity: 0 }, { opacity: 1 }], { duration: MOVE_MS });
      }
    });
    stood.current = now;
  }, [ids]);

  useLayoutEffect(() => {
    if (!focusNext.current) return;
    const button = list.current?.querySelector<HTMLElement>(`[data-rank="${active}"] .title`);
    if (button) {
      focusNext.current = false;
      button.focus();
    }
  });

  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const id = ids[active];
    if (!id) return;
    const step: Record<string, number> = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: form.columns, ArrowUp: -form.columns, Home: -active, End: hits.length,
    };
    const by = step[event.key];
    if (by !== undefined) {
      const next = Math.max(0, Math.min(hits.length - 1, active + by));
      event.preventDefault();
      setActive(next);
      focusNext.current = true;
      const box = list.current?.getBoundingClientRect();
      if (box) {
        const y = box.top + place(next, form).y;
        if (y < 80 || y + CARD_HEIGHT > innerHeight) scrollBy({ top: y - innerHeight / 3 });
      }
    } else if (event.key === "p") actions.pin(id, pins.get(id) === 1 ? 0 : 1);
    else if (event.key === "n") actions.pin(id, pins.get(id) === -0.5 ? 0 : -0.5);
    else if (event.key === "o") actions.open(id);
  };

  const stop = Math.min(active, hits.length - 1);
  // What is there stays; of what is not, so many in a frame, those on the screen first.
  const { ranks, more } = turn(ids, range, stop, drawn.current);
  useLayoutEffect(() => {
    drawn.current = new Set(ranks.map((rank) => ids[rank] ?? ""));
  });
  useEffect(() => {
    if (!more) return;
    const frame = requestAnimationFrame(() => settle((n) => n + 1));
    return () => cancelAnimationFrame(frame);
  });
  return (
    <div ref={watch}>
      <ol class="cards" ref={list} aria-label={label} style={{ height: `${form.height}px` }} onKeyDown={onKey}>
        {width > 0 && ranks.map((rank) => {
          const hit = hits[rank];
          if (!hit) return null;
          const at = place(rank, form);
          return (
            <Card key={hit.item_id} hit={hit} rank={rank} of={hits.length} x={at.x} y={at.y} width={form.width}
              active={rank === stop} chosen={hit.item_id === chosen} pin={pins.get(hit.item_id) ?? 0}
              move={shownMoves.get(hit.item_id) ?? 0} actions={actions} activate={setActive} />
          );
        })}
      </ol>
    </div>
  );
}

interface CardProps {
  hit: Hit;
  rank: number;
  of: number;
  x: number;
  y: number;
  width: number;
  active: boolean;
  chosen: boolean;
  pin: number;
  move: Move;
  actions: CardActions;
  activate(rank: number): void;
}

/** Each answer names its items anew; what of them a card shows is mostly as it was, and is not drawn again. */
const SamePicture = memo(Picture, ({ item: one }, { item: other }) =>
  one.item_id === other.item_id && one.title === other.title && one.image_url === other.image_url
  && String(one.category) === String(other.category));
const SameFacts = memo(Facts, ({ item: one }, { item: other }) =>
  one.brand === other.brand && one.price === other.price && one.currency === other.currency
  && one.in_stock === other.in_stock && one.rating?.mean === other.rating?.mean
  && one.rating?.count === other.rating?.count);

const Card = memo(function Card(props: CardProps) {
  const { hit, rank, of, x, y, width, active, chosen, pin, move, actions, activate } = props;
  const t = useWords();
  const id = hit.item_id;
  const tab = active ? 0 : -1;
  const moved = move === "new" ? t("fresh_in") : move > 0 ? t("rose", { n: move }) : move < 0 ? t("fell", { n: -move }) : "";
  return (
    <li class={`card${chosen ? " chosen" : ""}${pin ? (pin > 0 ? " plus" : " minus") : ""}`} data-id={id} data-rank={rank}
      aria-setsize={of} aria-posinset={rank + 1}
      style={{ transform: `translate(${x}px, ${y}px)`, width: `${width}px` }} onFocusIn={() => activate(rank)}>
      <span class="rank" aria-hidden="true">{rank + 1}</span>
      <SamePicture item={hit.item} />
      <div class="about">
        <button class="title" tabIndex={tab} aria-pressed={chosen} onClick={() => actions.why(chosen ? "" : id)}
          aria-label={`${hit.item.title}, ${t("rank", { n: rank + 1 })}, ${t("score", { n: hit.score.toFixed(2) })}`
            + `${moved ? `, ${moved}` : ""}. ${t("why")}`}>
          {hit.item.title}
        </button>
        <SameFacts item={hit.item} />
      </div>
      <div class="foot">
        <ShareBar score={hit.score} shares={hit.explanation?.shares} />
        <span class="score">{hit.score.toFixed(2)}</span>
        {moved && (
          <span class={`move ${move === "new" ? "in" : move > 0 ? "up" : "down"}`} aria-hidden="true">
            {move === "new" ? t("fresh_in") : move > 0 ? `▲ ${move}` : `▼ ${-move}`}
          </span>
        )}
        <span class="tools">
          <button tabIndex={tab} class="tool" aria-pressed={pin > 0} title={t("pin")}
            aria-label={`${t("pin")}: ${hit.item.title}`} onClick={() => actions.pin(id, pin > 0 ? 0 : 1)}><Icon name="plus" /></button>
          <button tabIndex={tab} class="tool" aria-pressed={pin < 0} title={t("unpin_less")}
            aria-label={`${t("unpin_less")}: ${hit.item.title}`} onClick={() => actions.pin(id, pin < 0 ? 0 : -0.5)}><Icon name="minus" /></button>
          <button tabIndex={tab} class="tool" title={t("open")}
            aria-label={`${t("open")}: ${hit.item.title}`} onClick={() => actions.open(id)}><Icon name="go" /></button>
        </span>
      </div>
    </li>
  );
});
