import { expect, test } from "vitest";
import { Messages } from "../src/stream";

const SENT = ': listening\n\nevent: updates\ndata: {"a":1}\n\n: still here\n\ndata: one\ndata: two\n\n';

test("messages are found wherever the network cuts", () => {
  for (let size = 1; size <= SENT.length; size++) {
    const messages = new Messages();
    const found: string[] = [];
    for (let at = 0; at < SENT.length; at += size) found.push(...messages.push(SENT.slice(at, at + size)));
    expect(found).toEqual(['{"a":1}', "one\ntwo"]);
  }
});

test("half a message is none", () => {
  expect(new Messages().push("data: half\n")).toEqual([]);
});

test("other ends of lines are ends of lines", () => {
  expect(new Messages().push("data: x\r\n\r\n")).toEqual(["x"]);
});
