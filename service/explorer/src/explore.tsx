/** Find, see, move, understand: seeds and weights on the left, neighbours in the middle, reasons on the right. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { api, type Answer, type Hit } from "./api";
import { Beside } from "./beside";
import { Cards, type CardActions } from "./cards";
import { useAsked, useShell } from "./hooks";
import { Icon } from "./icons";
import { Live } from "./live";
import { Failed, Notice, Skeletons, Tabs } from "./parts";
import { Neighbourhood2d } from "./map";
import { Picture } from "./picture";
import { FilterBlock, Presets, Seeds, Sliders } from "./rail";
import { asks, pinned, request } from "./state";
import { Why } from "./why";

export function Explore() {
  const { state } = useShell();
  return asks(state) ? <Neighbourhood /> : <Start />;
}

function Neighbourhood() {
  const shell = useShell();
  const { t, state, go, known, pulse, say } = shell;
  const body = useMemo(() => request(state), [state]);
  const found = useAsked(JSON.stringify(body), () => api.similar(body), pulse);
  const hits = found.data?.items ?? [];
  const chosen = hits.find((hit) => hit.item_id === state.why) ?? null;
  const pins = useMemo(
    () => new Map(state.seeds.map((seed) => [seed.id, seed.weight] as const)),
    [state.seeds],
  );
  const onScreen = useMemo(
    () => new Set([...hits.map((hit) => hit.item_id), ...state.seeds.map((seed) => seed.id)]),
    [hits, state.seeds],
  );
  const actions = useActions();
  const main = state.seeds.find((seed) => seed.weight > 0);
  const first = main ? known.get(main.id)?.title ?? main.id : state.text;
  const others = state.seeds.length + (state.text ? 1 : 0) - 1;
  const title = others > 0 ? `${first} ${t("and_more", { n: others })}` : first;
  const panels = [["why", t("why")], ["live", t("live")], ["map", t("map")]] as const;

  useEffect(() => {
    document.title = `${title} · ${t("title")}`;
    return () => {
      document.title = t("title");
    };
  }, [title, t.language]);

  return (
    <div class={`explore${state.why ? " explaining" : ""}`}>
      <Rail>
        <Seeds />
        <Sliders />
        <Presets />
        <FilterBlock hits={hits} />
      </Rail>
      <section class="results" id="results" tabIndex={-1} aria-labelledby="resultshead" aria-busy={found.loading}>
        <Head answer={found.data} title={title} loading={found.loading} />
        {found.failure && !(found.failure.status === 0 && found.data) && !retained(found.failure.status, found.data) ? (
          <Failed failure={found.failure} again={found.again} />
        ) : !found.data ? (
          <Skeletons count={9} />
        ) : hits.length === 0 ? (
          <Notice title={t("none_found")}><p>{t("none_found_text")}</p></Notice>
        ) : state.beside ? (
          <Beside live={found.data} release={state.beside} actions={actions} pins={pins} />
        ) : (
          <Cards hits={hits} label={t("neighbours_of", { title })} chosen={state.why} pins={pins} actions={actions}
            told={(up, down, fresh) => say(t("moved", { up, down, fresh }))} />
        )}
        {found.data && found.data.items.length > 0 && <p class="quiet keyhelp">{t("keys_help")}</p>}
      </section>
      <aside class="panel" aria-label={t(state.panel === "why" ? "why_title" : state.panel)}>
        <Tabs label={t("why")} tabs={panels} chosen={state.panel} panel="panelbody"
          choose={(panel) => go({ panel })} />
        <div id="panelbody" role="tabpanel" aria-labelledby={`panelbody-${state.panel}`}>
          {state.panel === "why" ? (
            <Why hit={chosen} id={state.why} close={() => go({ why: "", panel: "live" })} />
          ) : state.panel === "map" ? (
            <Neighbourhood2d hits={hits} chosen={state.why} choose={(id) => go({ why: id })} />
          ) : (
            <Live onScreen={onScreen} open={actions.open} />
          )}
        </div>
      </aside>
    </div>
  );
}

function retained(status: number, data: Answer | null): boolean {
  return data !== null && (status === 503 || status === 429);
}

export function useActions(): CardActions {
  const { state, go } = useShell();
  return useMemo(
    () => ({
      why: (id: string) => go({ why: id, panel: id ? "why" : "live" }),
      pin: (id: string, weight: number) => go({ seeds: pinned(state.seeds, id, weight) }, true),
      open: (id: string) => go({ view: "explore", seeds: [{ id, weight: 1 }], text: "", why: "", panel: "live" }, true),
    }),
    [state.seeds, go],
  );
}

/** On a telephone everything that is asked folds away. */
function Rail({ children }: { children: preact.ComponentChildren }) {
  const { t } = useShell();
  const narrow = useMedia("(max-width: 760px)");
  const [open, setOpen] = useState(false);
  if (!narrow) return <div class="rail">{children}</div>;
  return (
    <div class="rail">
      <button class="fold" aria-expanded={open} aria-controls="folded" onClick={() => setOpen(!open)}>
        {t("weights")} · {t("preset")} · {t("filters")} <Icon name="fold" />
      </button>
      <div id="folded" hidden={!open}>{children}</div>
    </div>
  );
}

function useMedia(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const look = () => setMatches(media.matches);
    media.addEventListener("change", look);
    return () => media.removeEventListener("change", look);
  }, [query]);
  return matches;
}

function Head({ answer, title, loading }: { answer: Answer | null; title: string; loading: boolean }) {
  const { t, state, go, say } = useShell();
  const releases = useAsked("releases", api.releases);
  const others = (releases.data?.releases ?? []).filter((one) => one.searchable && !one.live);
  return (
    <header class="resultshead">
      <h1 id="resultshead">{t("neighbours_of", { title })}</h1>
      <p class="meta">
        <span class={`busy${loading ? " on" : ""}`} aria-hidden="true" />
        {answer && <span>{t("count_ms", { n: answer.items.length, ms: t.number(answer.took_ms, 1) })}</span>}
        {answer && <span class="release" title={answer.release_id}>{t("release", { id: short(answer.release_id) })}</span>}
        {others.length > 0 && (
          <label class="inline">
            {t("compare")}
            <select value={state.beside} onChange={(event) => go({ beside: event.currentTarget.value }, true)}>
              <option value="">{t("compare_none")}</option>
              {others.map((one) => (
                <option key={one.collection} value={one.release_id}>
                  {short(one.release_id)}{one.state ? ` · ${t(`st_${one.state}`)}` : ""}
                </option>
              ))}
            </select>
          </label>
        )}
        <button class="link" onClick={() => {
          void navigator.clipboard?.writeText(location.href).then(() => say(t("copied")), () => undefined);
        }}>{t("copy")}</button>
      </p>
      {answer?.notes && answer.notes.length > 0 && (
        <p class="note" role="note">{t("notes")}: {answer.notes.join("; ")}</p>
      )}
    </header>
  );
}

export function short(release: string): string {
  return release.length > 26 ? `${release.slice(0, 16)}…${release.slice(-6)}` : release;
}

/** Nothing is asked yet: what is trending, else something of the catalogue, else how to fill it. */
function Start() {
  const { t, pulse } = useShell();
  const actions = useActions();
  const found = useAsked("start", startingPoints, pulse);
  if (found.failure && !found.data) return <div class="start"><Failed failure={found.failure} again={found.again} /></div>;
  if (!found.data) return <div class="start"><Skeletons count={8} /></div>;
  const { hits, trending } = found.data;
  return (
    <div class="start" id="results" tabIndex={-1}>
      <h1>{t("start_title")}</h1>
      <p class="lead">{t("start_text")}</p>
      {hits.length === 0 ? (
        <Notice title={t("empty_catalogue")}>
          <p>{t("empty_catalogue_text")}</p>
          <pre tabIndex={0}>simstream publish products catalogue.csv{"\n"}simstream shop --products 1000</pre>
        </Notice>
      ) : (
        <>
          <h2>{t(trending ? "start_trending" : "start_catalogue")}</h2>
          <ul class="tiles">{hits.map((hit) => <Tile key={hit.item_id} hit={hit} open={actions.open} />)}</ul>
        </>
      )}
    </div>
  );
}

async function startingPoints(): Promise<{ hits: Hit[]; trending: boolean }> {
  const trending = await api.trending("7d", 18);
  if (trending.items.length) return { hits: trending.items, trending: true };
  const some = await api.search("new", 18);
  return { hits: some.items, trending: false };
}

export function Tile({ hit, open, extra }: { hit: Hit; open: (id: string) => void; extra?: preact.ComponentChildren }) {
  const { t } = useShell();
  const item = hit.item;
  return (
    <li>
      <button class="tile" onClick={() => open(hit.item_id)}>
        <Picture item={item} size={72} />
        <span class="name">{item.title}</span>
        <span class="facts">
          {item.brand && <span class="brand">{item.brand}</span>}
          {item.price != null && <span class="price">{t.price(item.price, item.currency)}</span>}
        </span>
        {extra}
      </button>
    </li>
  );
}

