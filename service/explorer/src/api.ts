/** What the page asks of the API. The key lives in this module and nowhere else: a reload forgets it. */
import type { components } from "./api.d";

type Schemas = components["schemas"];
export type Answer = Schemas["Answer"];
export type Page = Schemas["Page"];
export type Hit = Schemas["Hit"];
export type HitItem = Schemas["HitItem"];
export type ItemView = Schemas["ItemView"];
export type SimilarRequest = Schemas["SimilarRequest"];
export type Filter = NonNullable<SimilarRequest["filter"]>;
export type BatchAnswer = Schemas["BatchAnswer"];
export type ReleaseView = Schemas["ReleaseView"];
export type ReleasesView = Schemas["ReleasesView"];
export type ReleaseRecord = Schemas["ReleaseRecord"];
export type PipelineView = Schemas["PipelineView"];
export type RecentView = Schemas["RecentView"];
export type Updates = Schemas["UpdatesView"];
export type MapView = Schemas["MapView"];
export type Update = Schemas["UpdateView"];
export type Reason = Schemas["ReportRequest"]["reason"];
export type Reported = Schemas["Reported"];
export type Window = "1h" | "24h" | "7d" | "30d";

/** A refusal, or no answer at all (status 0). */
export class Failure extends Error {
  constructor(
    readonly status: number,
    detail: string,
    readonly scope = "",
  ) {
    super(detail);
  }
}

let key = "";

export function useKey(given: string): void {
  key = given;
}

export function hasKey(): boolean {
  return key !== "";
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  return key === "" ? more : { ...more, Authorization: `Bearer ${key}` };
}

async function call<T>(path: string, init: RequestInit = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Failure(0, String(error));
  }
  if (!response.ok) throw await failureOf(response);
  return (await response.json()) as T;
}

export async function failureOf(response: Response): Promise<Failure> {
  try {
    const problem = (await response.json()) as Schemas["Problem"];
    const scope = problem.errors?.find((error) => "scope" in error)?.["scope"] ?? "";
    return new Failure(response.status, problem.detail, scope);
  } catch {
    return new Failure(response.status, response.statusText);
  }
}

function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return call<T>(path, { headers: headers(), ...(signal ? { signal } : {}) });
}

function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return call<T>(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  });
}

const id = encodeURIComponent;

export const api = {
  item: (item: string, signal?: AbortSignal) => get<ItemView>(`/v1/items/${id(item)}`, signal),
  similar: (request: Partial<SimilarRequest>, signal?: AbortSignal) =>
    post<Answer>("/v1/similar", request, signal),
  /** Items for what was typed so far, and whether it is an item's id. */
  async suggest(text: string, signal?: AbortSignal): Promise<{ hits: Hit[]; isId: boolean }> {
    const weights = { content: 1, lexical: 2 };
    const queries: Partial<SimilarRequest>[] = [{ text, weights, limit: 8 }];
    if (!/\s/.test(text)) queries.push({ seeds: [{ item_id: text, weight: 1 }], limit: 1 });
    const found = await post<BatchAnswer>("/v1/similar/batch", { queries }, signal);
    return { hits: found.answers[0]?.answer?.items ?? [], isId: found.answers[1]?.answer != null };
  },
  search: (text: string, limit: number) => post<Answer>("/v1/search", { text, limit }),
  trending: (window: Window, limit: number, offset = 0) =>
    get<Page>(`/v1/trending?window=${window}&limit=${limit}&offset=${offset}`),
  recent: (user: string) => get<RecentView>(`/v1/users/${id(user)}/recent`),
  recommended: (user: string, limit: number) =>
    get<Answer>(`/v1/users/${id(user)}/recommendations?explain=true&limit=${limit}`),
  map: (ids: string[]) => post<MapView>("/v1/map", { item_ids: ids }),
  report: (item: string, reason: Reason, seed: string | null) =>
    post<Reported>("/v1/reports", { item_id: item, reason, ...(seed === null ? {} : { seed }) }),
  release: () => get<ReleaseView>("/v1/release"),
  releases: () => get<ReleasesView>("/v1/releases"),
  pipeline: () => get<PipelineView>("/v1/pipeline"),
};
