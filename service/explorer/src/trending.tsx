/** Items with the most shoppers, page by page. */
import { useEffect, useState } from "preact/hooks";
import { api, type Page } from "./api";
import { Tile, useActions } from "./explore";
import { useAsked, useShell } from "./hooks";
import { Failed, Notice, Skeletons } from "./parts";

const WINDOWS = ["1h", "24h", "7d", "30d"] as const;
const PAGE = 24;

export function Trending() {
  const { t, state, go, pulse } = useShell();
  const [pages, setPages] = useState(1);
  useEffect(() => setPages(1), [state.window]);
  const found = useAsked(`${state.window} ${pages}`, () => upTo(state.window, pages), pulse);
  const actions = useActions();
  return (
    <div class="page" id="results" tabIndex={-1}>
      <h1>{t("trending")}</h1>
      <div class="chips" role="group" aria-label={t("window")}>
        {WINDOWS.map((window) => (
          <button key={window} class="chip" aria-pressed={state.window === window} onClick={() => go({ window }, true)}>
            {t(`w_${window}`)}
          </button>
        ))}
      </div>
      {found.failure && !found.data ? <Failed failure={found.failure} again={found.again} />
        : !found.data ? <Skeletons count={12} />
        : found.data.items.length === 0 ? <Notice title={t("trending")}><p>{t("trending_none")}</p></Notice>
        : (
          <>
            <ol class="tiles">
              {found.data.items.map((hit) => (
                <Tile key={hit.item_id} hit={hit} open={actions.open} extra={(
                  <span class="heat" title={t("trending_score", { n: `${t.number(hit.score * 100)} %` })}>
                    <i style={{ width: `${hit.score * 100}%` }} />
                  </span>
                )} />
              ))}
            </ol>
            {found.data.next_offset != null && (
              <button class="solid" onClick={() => setPages((n) => n + 1)}>{t("more")}</button>
            )}
          </>
        )}
    </div>
  );
}

async function upTo(window: (typeof WINDOWS)[number], pages: number): Promise<Page> {
  let all = await api.trending(window, PAGE);
  for (let page = 1; page < pages && all.next_offset != null; page++) {
    const next = await api.trending(window, PAGE, all.next_offset);
    all = { ...next, items: [...all.items, ...next.items] };
  }
  return all;
}
