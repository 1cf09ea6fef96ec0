/** The state of the pipeline: how fresh, how far behind, what died and why, which releases there were. */
import { api, type PipelineView, type ReleaseRecord } from "./api";
import { useAsked, useShell } from "./hooks";
import { Failed, Skeletons } from "./parts";

const EVERY_MS = 2000;

export function Pipeline() {
  const { t } = useShell();
  const found = useAsked("pipeline", api.pipeline, 0, EVERY_MS);
  const releases = useAsked("releases", api.releases, 0, EVERY_MS * 3);
  const failure = found.failure ?? releases.failure;
  return (
    <div class="page" id="results" tabIndex={-1}>
      <h1>{t("pipeline")}</h1>
      {failure && !found.data ? <Failed failure={failure} again={found.again} />
        : !found.data ? <Skeletons count={4} /> : <State view={found.data} />}
      {releases.data && <Releases records={releases.data.releases} />}
    </div>
  );
}

function State({ view }: { view: PipelineView }) {
  const { t } = useShell();
  const all = view.freshness[0];
  const longest = Math.max(1, ...view.freshness.map((one) => one.p99_ms ?? 0));
  return (
    <>
      {view.notes && view.notes.length > 0 && <p class="note" role="note">{view.notes.join("; ")}</p>}
      <div class="two">
        <section class="box" aria-labelledby="fresh">
          <h2 id="fresh">{t("freshness")}</h2>
          <table class="figures">
            <thead>
              <tr><th scope="col">{t("changes")}</th><th scope="col" class="num">n</th><th scope="col" class="num">p50</th>
                <th scope="col" class="num">p95</th><th scope="col" class="num">p99</th></tr>
            </thead>
            <tbody>
              {view.freshness.map((one) => (
                <tr key={one.name}>
                  <th scope="row">
                    {t(one.name === "text" ? "fr_text" : one.name === "other" ? "fr_other" : "fr_all")}
                    <span class="heat" aria-hidden="true"><i style={{ width: `${((one.p95_ms ?? 0) / longest) * 100}%` }} /></span>
                  </th>
                  <td class="num">{t.number(one.updates)}</td>
                  {[one.p50_ms, one.p95_ms, one.p99_ms].map((value, at) => (
                    <td key={at} class="num">{value == null ? "–" : t.span(value)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
          <p class="quiet">
            {t("since_open", {
              n: t.number(all?.updates ?? 0), calls: t.number(view.encoder_calls), time: t.span(view.window_seconds * 1000),
            })}
          </p>
        </section>
        <section class="box" aria-labelledby="consumers">
          <h2 id="consumers">{t("consumers")}</h2>
          <div class="scroll" tabIndex={0} role="group" aria-labelledby="consumers">
            <table class="figures">
              <thead>
                <tr><th scope="col">{t("consumer")}</th><th scope="col">{t("topic")}</th>
                  <th scope="col" class="num">{t("lag")}</th><th scope="col" class="num">{t("records")}</th>
                  <th scope="col" class="num">{t("letters")}</th></tr>
              </thead>
              <tbody>
                {view.consumers.map((one) => (
                  <tr key={`${one.consumer} ${one.topic}`}>
                    <th scope="row">{one.consumer}</th>
                    <td>{one.topic}</td>
                    <td class={`num${one.lag_records ? " behind" : ""}`}>
                      {one.lag_records == null ? "–" : t.number(one.lag_records)}
                    </td>
                    <td class="num">{t.number(one.records)}</td>
                    <td class={`num${one.dead_letters ? " behind" : ""}`}>{t.number(one.dead_letters)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </section>
      </div>
      <section class="box" aria-labelledby="letters">
        <h2 id="letters">{t("letters")}</h2>
        {view.dead_letters.length === 0 ? <p class="quiet">{t("no_letters")}</p> : (
          <div class="scroll" tabIndex={0} role="group" aria-labelledby="letters">
            <table class="figures letters">
              <thead>
                <tr><th scope="col">{t("letter_when")}</th><th scope="col">{t("topic")}</th>
                  <th scope="col">{t("letter_why")}</th><th scope="col">id</th></tr>
              </thead>
              <tbody>
                {view.dead_letters.map((one) => (
                  <tr key={one.identity}>
                    <td>{t.time(one.died_at)}</td>
                    <td>{one.topic}</td>
                    <td>{one.error}{one.redriven && <span class="badge free">{t("redriven")}</span>}</td>
                    <td><code>{one.identity}</code></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </section>
    </>
  );
}

function Releases({ records }: { records: ReleaseRecord[] }) {
  const { t } = useShell();
  return (
    <section class="box" aria-labelledby="releases">
      <h2 id="releases">{t("releases")}</h2>
      <ul class="releases">
        {records.map((one) => (
          <li key={one.collection ?? one.release_id}>
            <header>
              <span class={`badge ${one.live ? "on" : ""}`}>{t(one.live ? "st_live" : `st_${one.state ?? "published"}`)}</span>
              <code>{one.release_id}</code>
              {one.since && <small>{t("since")} {t.time(one.since)}</small>}
              <span class={`gate ${one.verdict ? (one.verdict.passed ? "passed" : "failed") : ""}`}>
                {t("gate")}: {one.verdict ? t(one.verdict.passed ? "gate_passed" : "gate_failed") : t("gate_none")}
              </span>
            </header>
            {one.reason && <p>{one.reason}</p>}
            {one.verdict?.reasons?.map((reason) => <p key={reason}>{reason}</p>)}
            {one.verdict?.figures && one.verdict.figures.length > 0 && (
              <details>
                <summary>{t("gate_report")}</summary>
                <div class="scroll" tabIndex={0} role="group" aria-label={t("gate_report")}>
                  <table class="figures">
                    <thead>
                      <tr><th scope="col">{t("set")}</th><th scope="col" class="num">{t("queries")}</th>
                        <th scope="col" class="num">{t("before")}</th><th scope="col" class="num">{t("after")}</th>
                        <th scope="col" class="num">{t("difference")}</th></tr>
                    </thead>
                    <tbody>
                      {one.verdict.figures.map((figure) => (
                        <tr key={`${figure.name} ${figure.slice ?? ""}`}>
                          <th scope="row">{figure.name}{figure.slice ? ` · ${figure.slice}` : ""}</th>
                          <td class="num">{t.number(figure.queries)}</td>
                          <td class="num">{t.number(figure.before, 3)}</td>
                          <td class="num">{t.number(figure.after, 3)}</td>
                          <td class="num">{t.number(figure.low, 3)} … {t.number(figure.high, 3)}</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </div>
              </details>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
