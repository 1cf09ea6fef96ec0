/** The live release and another one side by side: who is in both, who moved, who is only in one. */
import { useMemo } from "preact/hooks";
import { api, type Answer, type Hit } from "./api";
import type { CardActions } from "./cards";
import { short } from "./explore";
import { useAsked, useShell } from "./hooks";
import { moves, type Move } from "./layout";
import { Failed, Skeletons } from "./parts";
import { Picture } from "./picture";
import { request } from "./state";

export function Beside({ live, release, actions, pins }: {
  live: Answer;
  release: string;
  actions: CardActions;
  pins: ReadonlyMap<string, number>;
}) {
  const { t, state, pulse } = useShell();
  const body = useMemo(() => request(state, release), [state, release]);
  const other = useAsked(JSON.stringify(body), () => api.similar(body), pulse);
  if (other.failure && !other.data) {
    return (
      <>
        {other.failure.status === 403 && <p class="note" role="note">{t("beside_scope")}</p>}
        <Failed failure={other.failure} again={other.again} />
      </>
    );
  }
  if (!other.data) return <Skeletons count={6} />;
  const ours = live.items.map((hit) => hit.item_id);
  const theirs = other.data.items.map((hit) => hit.item_id);
  const moved = moves(ours, theirs);
  const both = theirs.filter((id) => ours.includes(id));
  const gone = new Map<string, Move>(ours.filter((id) => !theirs.includes(id)).map((id) => [id, "new" as const]));
  return (
    <div class="beside">
      <p class="quiet" role="status">
        {t("beside_common", { n: both.length, of: theirs.length, moved: both.filter((id) => moved.has(id)).length })}
      </p>
      <div class="columns">
        <Column name={t("beside_live")} release={live.release_id} hits={live.items} marks={gone} actions={actions}
          pins={pins} />
        <Column name={t("candidate")} release={release} hits={other.data.items} marks={moved} actions={actions}
          pins={pins} />
      </div>
    </div>
  );
}

function Column({ name, release, hits, marks, actions, pins }: {
  name: string;
  release: string;
  hits: Hit[];
  marks: ReadonlyMap<string, Move>;
  actions: CardActions;
  pins: ReadonlyMap<string, number>;
}) {
  const { t, state } = useShell();
  return (
    <section aria-label={`${name} ${release}`}>
      <h2>{name} <small title={release}>{short(release)}</small></h2>
      <ol class="rows">
        {hits.map((hit, rank) => {
          const mark = marks.get(hit.item_id);
          return (
            <li key={hit.item_id} class={`${hit.item_id === state.why ? "chosen" : ""} ${pins.has(hit.item_id) ? "plus" : ""}`}>
              <span class="rank" aria-hidden="true">{rank + 1}</span>
              <Picture item={hit.item} size={32} />
              <button class="title" onClick={() => actions.why(hit.item_id)}>{hit.item.title}</button>
              <span class={`move ${mark === "new" ? "in" : mark && mark > 0 ? "up" : "down"}`}>
                {mark === "new" ? t("beside_only") : mark ? (mark > 0 ? `▲ ${mark}` : `▼ ${-mark}`) : ""}
              </span>
              <span class="score">{hit.score.toFixed(2)}</span>
            </li>
          );
        })}
      </ol>
    </section>
  );
}
