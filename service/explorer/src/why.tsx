/** Why one neighbour is one: its dimensions, what it shares with the seed, which rules moved it. */
import { api, type Hit } from "./api";
import { useAsked, useNow, useShell } from "./hooks";
import { Icon } from "./icons";
import { Dot, Facts, Notice, Opinions } from "./parts";
import { Picture } from "./picture";
import { Report } from "./report";
import { DIMENSIONS, type Dimension, type Preset } from "./state";

export function Why({ hit, id, close }: { hit: Hit | null; id: string; close: () => void }) {
  const { t, known, pulse, state } = useShell();
  const now = useNow(5);
  const item = useAsked(hit ? id : null, hit ? () => api.item(id) : null, pulse);
  if (!id) return <Notice title={t("why_title")}><p>{t("why_none")}</p></Notice>;
  if (!hit) return <Notice title={t("why_title")}><p>{t("why_gone")}</p></Notice>;
  const explanation = hit.explanation;
  const shared = explanation?.shared;
  const rules = explanation?.rules;
  const applied: string[] = [];
  if (rules?.preset) applied.push(t("rule_preset", { name: t(rules.preset as Preset) }));
  if (rules?.same_category != null) applied.push(t("rule_same_category", { x: t.number(rules.same_category, 2) }));
  if (rules?.freshness != null) applied.push(t("rule_freshness", { x: t.number(rules.freshness, 2) }));
  if (rules?.diversity) applied.push(t("rule_diversity", { n: rules.diversity }));
  if (rules?.brand_cap) applied.push(t("rule_brand_cap", { n: rules.brand_cap }));
  if (rules?.group) applied.push(t("rule_group", { n: rules.group }));
  // What it was shown for: of several seeds the heaviest.
  const heaviest = [...state.seeds].sort((a, b) => b.weight - a.weight)[0];
  const seed = heaviest && heaviest.weight > 0 && heaviest.id !== id ? heaviest.id : null;
  const ages = item.data?.item_id === id ? item.data.dimensions : undefined;
  return (
    <section class="why" aria-label={t("why_title")}>
      <header>
        <Picture item={hit.item} size={64} />
        <div>
          <h2>{hit.item.title}</h2>
          <Facts item={hit.item} />
        </div>
        <button class="tool close" aria-label={t("close")} onClick={close}><Icon name="close" /></button>
      </header>
      <p class="total">
        <b>{hit.score.toFixed(3)}</b> <span>{t("of_one")}</span>
      </p>
      <table class="dims">
        <thead>
          <tr>
            <th scope="col">{t("dimension")}</th>
            <th scope="col">{t("similarity")}</th>
            <th scope="col" class="num">{t("counts")}</th>
            <th scope="col" class="num">{t("share")}</th>
          </tr>
        </thead>
        <tbody>
          {DIMENSIONS.map((name) => <Row key={name} name={name} hit={hit} at={ages?.[name]?.updated_at} now={now} />)}
          {hit.dimensions.relations && <Row name="relations" hit={hit} at={undefined} now={now} />}
        </tbody>
      </table>
      <dl class="shared">
        {explanation?.related && (
          <>
            <dt>{t(explanation.related.basis === "bought together" ? "bought_together" : "seen_together")}</dt>
            <dd>
              {t("related", {
                n: t.number(explanation.related.together),
                support: t.number(explanation.related.support * 100, 2),
                lift: t.number(explanation.related.lift, 1),
              })}
            </dd>
          </>
        )}
        {shared && shared.terms && shared.terms.length > 0 && (
          <>
            <dt>{t("shared_terms")}</dt>
            <dd class="chips">{shared.terms.map((term) => <span class="chip" key={term}>{term}</span>)}</dd>
          </>
        )}
        {hit.item.opinions && hit.item.opinions.length > 0 && (
          <>
            <dt>{t("reviewers_say")}</dt>
            <dd><Opinions terms={hit.item.opinions} /></dd>
          </>
        )}
        <dt>{t("shoppers_common")}</dt>
        <dd>{shared?.shoppers ? t.number(shared.shoppers) : t("shoppers_none")}</dd>
        {shared?.price_ratio != null && (
          <>
            <dt>{t("price_ratio")}</dt>
            <dd><Ratio value={shared.price_ratio} /></dd>
          </>
        )}
        {shared?.category_distance != null && (
          <>
            <dt>{t("category_distance")}</dt>
            <dd>
              {shared.category_distance === 0 ? t("same_leaf") : t("levels", { n: shared.category_distance })}
              {shared.category && shared.category.length > 0 && <small> {shared.category.join(" › ")}</small>}
            </dd>
          </>
        )}
        {shared?.brand && (<><dt>{t("same_brand")}</dt><dd>{shared.brand}</dd></>)}
        <dt>{t("rules")}</dt>
        <dd>{applied.length ? <ul>{applied.map((rule) => <li key={rule}>{rule}</li>)}</ul> : t("no_rules")}</dd>
        {explanation?.seeds && explanation.seeds.length > 1 && (
          <>
            <dt>{t("owes")}</dt>
            <dd>
              <ul class="owes">
                {explanation.seeds.map((seed) => (
                  <li key={seed.seed}>
                    <span>{seed.item_id ? known.get(seed.item_id)?.title ?? seed.item_id : t("seed_text")}</span>
                    <b>{t.number(seed.share * 100)} %</b>
                  </li>
                ))}
              </ul>
            </dd>
          </>
        )}
      </dl>
      <Report key={`${seed} ${id}`} seed={seed} item={id} />
    </section>
  );
}

function Row({ name, hit, at, now }: { name: Dimension | "relations"; hit: Hit; at: string | undefined; now: number }) {
  const { t } = useShell();
  const found = hit.dimensions[name];
  const share = hit.explanation?.shares[name];
  return (
    <tr class={found ? "" : "absent"}>
      <th scope="row">
        <Dot name={name} />
        {t(name)}
        {at && <small>{t.ago(at, now)}</small>}
      </th>
      <td>
        {found ? (
          <span class="meter">
            <span aria-hidden="true">
              <i class={name} style={{ width: `${Math.max(0, Math.min(1, found.score)) * 100}%` }} />
            </span>
            <b>{found.score.toFixed(2)}</b>
          </span>
        ) : (
          <small>{t("absent")}</small>
        )}
      </td>
      <td class="num">{found ? t.number(found.weight, 2) : "–"}</td>
      <td class="num">{share !== undefined ? `${t.number(share * 100)} %` : "–"}</td>
    </tr>
  );
}

/** A price over the seed's on a scale from a quarter to four times. */
function Ratio({ value }: { value: number }) {
  const at = (Math.log2(Math.max(0.25, Math.min(4, value))) + 2) / 4;
  return (
    <span class="ratio">
      <span class="scale" aria-hidden="true"><i style={{ left: `${at * 100}%` }} /></span>
      <b>× {value.toFixed(2)}</b>
    </span>
  );
}
