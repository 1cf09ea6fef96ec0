import { afterEach, expect, test, vi } from "vitest";
import { api, Failure, hasKey, useKey } from "../src/api";

afterEach(() => {
  vi.unstubAllGlobals();
  useKey("");
});

function answering(status: number, body: unknown): ReturnType<typeof vi.fn> {
  const fetched = vi.fn(async () => new Response(JSON.stringify(body), { status }));
  vi.stubGlobal("fetch", fetched);
  return fetched;
}

test("the key goes with each request, and without one nothing does", async () => {
  const fetched = answering(200, { item_id: "x" });
  await api.item("x");
  expect(fetched.mock.calls[0]?.[1].headers).toEqual({});
  useKey("simstream_abc");
  expect(hasKey()).toBe(true);
  await api.item("a/b c");
  expect(fetched.mock.calls[1]?.[0]).toBe("/v1/items/a%2Fb%20c");
  expect(fetched.mock.calls[1]?.[1].headers).toEqual({ Authorization: "Bearer simstream_abc" });
});

test("a refusal is told with its own words and the scope it names", async () => {
  answering(403, { title: "Forbidden", status: 403, detail: "needs admin", errors: [{ scope: "admin", message: "" }] });
  const error = await api.releases().catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(Failure);
  expect(error).toMatchObject({ status: 403, message: "needs admin", scope: "admin" });
});

test("no answer at all has the status 0", async () => {
  vi.stubGlobal("fetch", async () => {
    throw new TypeError("Failed to fetch");
  });
  await expect(api.pipeline()).rejects.toMatchObject({ status: 0 });
});

test("what is typed is looked up as a text, and as an id if it can be one", async () => {
  const fetched = answering(200, { answers: [{ answer: { items: [] } }, { answer: null, problem: { status: 404 } }] });
  expect(await api.suggest("B00X")).toEqual({ hits: [], isId: false });
  expect(JSON.parse(fetched.mock.calls[0]?.[1].body).queries).toHaveLength(2);
  await api.suggest("two words");
  expect(JSON.parse(fetched.mock.calls[1]?.[1].body).queries).toHaveLength(1);
});
