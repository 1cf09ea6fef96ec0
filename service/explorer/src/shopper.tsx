/** One shopper: what they did lately, what they are recommended, and which of the one the other comes from. */
import { useEffect, useState } from "preact/hooks";
import { api, type Hit } from "./api";
import { Tile, useActions } from "./explore";
import { useAsked, useNow, useShell } from "./hooks";
import { Failed, Notice, ShareBar, Skeletons } from "./parts";
import { Picture } from "./picture";

export function Shopper() {
  const { t, state, go } = useShell();
  const [text, setText] = useState(state.user);
  useEffect(() => setText(state.user), [state.user]);
  return (
    <div class="page" id="results" tabIndex={-1}>
      <h1>{t("shopper")}</h1>
      <form class="ask" onSubmit={(event) => {
        event.preventDefault();
        go({ user: text.trim() }, true);
      }}>
        <label class="field">
          <span>{t("user_label")}</span>
          <input value={text} autocomplete="off" spellcheck={false} onInput={(e) => setText(e.currentTarget.value)} />
        </label>
        <button class="solid">{t("user_go")}</button>
      </form>
      {state.user ? <Known user={state.user} /> : <Notice title={t("shopper")}><p>{t("user_none")}</p></Notice>}
    </div>
  );
}

function Known({ user }: { user: string }) {
  const { t, pulse } = useShell();
  const now = useNow(5);
  const actions = useActions();
  const recent = useAsked(`recent ${user}`, () => api.recent(user), pulse);
  const found = useAsked(`recommended ${user}`, () => api.recommended(user, 24), pulse);
  const failure = recent.failure ?? found.failure;
  if (failure && !found.data) return <Failed failure={failure} again={found.again} />;
  const titles = new Map((recent.data?.items ?? []).map((one) => [one.item_id, one.item?.title ?? one.item_id]));
  return (
    <>
      <h2>{t("user_recent")}</h2>
      {!recent.data ? <Skeletons count={4} /> : recent.data.items.length === 0 ? (
        <p class="quiet">{t("user_unknown")}</p>
      ) : (
        <ol class="recent">
          {recent.data.items.map((one) => (
            <li key={one.item_id}>
              {one.item && <Picture item={one.item} size={44} />}
              <div>
                <button class="link" disabled={!one.item} onClick={() => actions.open(one.item_id)}>
                  {one.item?.title ?? one.item_id}
                </button>
                <small>
                  <span class={`badge ev ${one.type}`}>{t(`ev_${one.type}`)}</span> {t.ago(one.at, now)}
                  {one.bought && one.type !== "purchase" && ` · ${t("bought")}`}
                  {!one.item && ` · ${t("gone_item")}`}
                </small>
              </div>
            </li>
          ))}
        </ol>
      )}
      <h2>{t("user_recommended")}</h2>
      {found.data?.notes && found.data.notes.length > 0 && <p class="note" role="note">{found.data.notes.join("; ")}</p>}
      {!found.data ? <Skeletons count={8} /> : (
        <ul class="tiles">
          {found.data.items.map((hit) => (
            <Tile key={hit.item_id} hit={hit} open={actions.open} extra={<Because hit={hit} titles={titles} />} />
          ))}
        </ul>
      )}
    </>
  );
}

/** Which recent item a recommendation owes most to; with one seed there is nothing to divide. */
function Because({ hit, titles }: { hit: Hit; titles: ReadonlyMap<string, string> }) {
  const { t } = useShell();
  const best = [...(hit.explanation?.seeds ?? [])].sort((a, b) => b.share - a.share)[0];
  const id = best?.item_id ?? (titles.size === 1 ? [...titles.keys()][0] : undefined);
  return (
    <>
      {hit.explanation && <ShareBar score={hit.score} shares={hit.explanation.shares} />}
      {hit.explanation && id && <small class="because">{t("because", { title: titles.get(id) ?? id })}</small>}
    </>
  );
}
