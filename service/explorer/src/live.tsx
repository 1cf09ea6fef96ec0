/** Changes as they arrive: what changed, what it cost, how long it took. */
import { useNow, useShell } from "./hooks";
import { Notice } from "./parts";
import { DIMENSIONS, type Dimension } from "./state";

export function Live({ onScreen, open }: { onScreen: ReadonlySet<string>; open: (id: string) => void }) {
  const { t, updates, passedOver, standing } = useShell();
  const now = useNow(1);
  const failure = standing.failure;
  return (
    <section class="live" aria-label={t("live")}>
      <p class={`listening ${standing.open ? "on" : "off"}`} role="status">
        <i aria-hidden="true" />
        {standing.open ? t("listening") : failure ? t("not_listening", { detail: failure.message }) : t("connecting")}
      </p>
      {updates.length === 0 ? (
        <Notice title={t("nothing_yet")}><p>{t("publish_one")}</p></Notice>
      ) : (
        <ol class="ticker" aria-live="off">
          {updates.map((update) => (
            <li key={`${update.item_id} ${update.searchable_at}`} class={onScreen.has(update.item_id) ? "near" : ""}>
              <button class="link" onClick={() => open(update.item_id)} disabled={update.deleted}>
                {update.title ?? update.item_id}
              </button>
              <div class="cost">
                {update.deleted && <span class="badge gone">{t("deleted")}</span>}
                {update.dimensions.map((name) => (
                  <span key={name} class={`badge ${name}`}>{isKnown(name) ? t(name) : name}</span>
                ))}
                <span class={`badge ${update.encoder_calls ? "calls" : "free"}`}>
                  {update.encoder_calls ? t("encoder_calls", { n: update.encoder_calls }) : t("no_encoder")}
                </span>
              </div>
              <small>
                {t("in_ms", { ms: t.span(update.freshness_ms) })} · {t.ago(update.searchable_at, now)}
                {onScreen.has(update.item_id) && <b> · {t("affects")}</b>}
              </small>
            </li>
          ))}
        </ol>
      )}
      {passedOver > 0 && <p class="quiet">{t("passed_over", { n: t.number(passedOver) })}</p>}
    </section>
  );
}

function isKnown(name: string): name is Dimension | "context" {
  return name === "context" || (DIMENSIONS as readonly string[]).includes(name);
}
