/** The neighbourhood on a plane. Everything on it is among the cards too: this is a picture, not a list. */
import { useMemo } from "preact/hooks";
import { api, type Hit } from "./api";
import { useAsked, useShell } from "./hooks";
import { Failed, Notice } from "./parts";
import { hueOf } from "./picture";

const SIDE = 300;
const EDGE = 26;

export function Neighbourhood2d({ hits, chosen, choose }: {
  hits: Hit[];
  chosen: string;
  choose: (id: string) => void;
}) {
  const { t, state, known, pulse } = useShell();
  const seeds = state.seeds.map((seed) => seed.id);
  const ids = useMemo(
    () => [...new Set([...seeds, ...hits.map((hit) => hit.item_id)])].sort(),
    [hits, state.seeds],
  );
  const found = useAsked(ids.length > 2 ? ids.join("\n") : null, () => api.map(ids), pulse);
  if (ids.length < 3) return <Notice title={t("map")}><p>{t("map_none")}</p></Notice>;
  if (found.failure && !found.data) return <Failed failure={found.failure} again={found.again} />;
  if (!found.data) return <p class="quiet pad" role="status">{t("map_loading")}</p>;
  const items = new Map(hits.map((hit) => [hit.item_id, hit]));
  const at = (value: number) => EDGE + ((value + 1) / 2) * (SIDE - 2 * EDGE);
  const named = chosen || hits[0]?.item_id;
  return (
    <figure class="map">
      <svg viewBox={`0 0 ${SIDE} ${SIDE}`} role="img" aria-label={t("map_text")}>
        <path class="axes" d={`M${SIDE / 2} 8V${SIDE - 8}M8 ${SIDE / 2}H${SIDE - 8}`} />
        {found.data.places.map((place) => {
          const hit = items.get(place.item_id);
          const seed = seeds.includes(place.item_id);
          const item = hit?.item ?? known.get(place.item_id);
          const title = item?.title ?? place.item_id;
          const flip = place.x > 0.2;
          return (
            <g key={place.item_id} class={`${seed ? "seed" : ""} ${place.item_id === chosen ? "chosen" : ""}`}
              style={{ "--hue": String(item ? hueOf(item) : 0), transform: `translate(${at(place.x)}px, ${at(place.y)}px)` }}
              onClick={() => hit && choose(place.item_id)}>
              <circle r={seed ? 9 : 4 + 6 * Math.max(0, hit?.score ?? 0)} />
              <title>{title}</title>
              {place.item_id === named && (
                <text x={flip ? -13 : 13} y="4" text-anchor={flip ? "end" : "start"}>{cut(title)}</text>
              )}
            </g>
          );
        })}
      </svg>
      <figcaption class="quiet">
        {t("map_text")} {t("map_shown", { n: `${t.number(found.data.shown * 100)} %` })}
      </figcaption>
    </figure>
  );
}

function cut(title: string): string {
  return title.length > 24 ? `${title.slice(0, 23)}…` : title;
}
