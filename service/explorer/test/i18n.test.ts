import { expect, test } from "vitest";
import { sentences, words } from "../src/i18n";

test("both languages say the same things with the same values", () => {
  const values = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
  for (const [word, [en, zh]] of Object.entries(sentences())) {
    expect(zh, word).not.toBe("");
    expect(values(zh), word).toEqual(values(en));
  }
});

test("values are put in, and a missing one leaves nothing behind", () => {
  const t = words("en");
  expect(t("rank", { n: 3 })).toBe("rank 3");
  expect(t("rank")).toBe("rank ");
});

test("spans of time are read in the unit that fits", () => {
  const t = words("en");
  expect([12, 1_500, 300_000, 10_800_000, 864_000_000].map(t.span)).toEqual(["12 ms", "1.5 s", "5 min", "3 h", "10 d"]);
});

test("an unknown currency is shown as it is", () => {
  const t = words("en");
  expect(t.price("9.5", "EUR")).toBe("€9.50");
  expect(t.price("9.5", "NOT A CURRENCY")).toBe("9.5 NOT A CURRENCY");
  expect(t.price("9.5", null)).toBe("9.50");
});

test("what has just happened is not seconds ago", () => {
  const t = words("en");
  const now = Date.parse("2026-11-24T08:00:00Z");
  expect(t.ago("2026-11-24T07:59:58Z", now)).toBe("just now");
  expect(t.ago("2026-11-24T07:57:00Z", now)).toMatch(/3 min/);
});
