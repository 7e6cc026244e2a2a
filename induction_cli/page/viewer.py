"""Heads' attention on example texts as one HTML page: no request leaves it, it works from file://, light and dark."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One text and some heads' attention on it.

    tokens: as shown, one string each. heads: (label, remark). patterns [head, query, key], shares of attention.
    targets: (query, key) pairs that the example is about; they are underlined.
    """

    title: str
    remark: str
    tokens: list[str]
    heads: list[tuple[str, str]]
    patterns: Tensor
    targets: list[tuple[int, int]]


def packed(pattern: Tensor) -> str:
    """The lower triangle of [query, key], row by row, each share as a whole number 0 .. 255; base64."""
    query, key = torch.tril_indices(*pattern.shape)
    shares = (pattern[query, key].clamp(0, 1) * 255).round().to(torch.uint8)
    return base64.b64encode(shares.cpu().numpy().tobytes()).decode()


def attention_page(title: str, examples: Sequence[Example]) -> str:
    """The page. Hover or tab to a token: what it attends to is shaded; a click holds it; buttons choose the head."""
    data = [
        {
            "title": example.title,
            "remark": example.remark,
            "tokens": example.tokens,
            "heads": [
                {"name": name, "remark": remark, "pattern": packed(pattern)}
                for (name, remark), pattern in zip(example.heads, example.patterns, strict=True)
            ],
            "targets": example.targets,
        }
        for example in examples
    ]
    # '<' is escaped, so that no text can close the script element
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return PAGE.replace("TITLE", html.escape(title)).replace("DATA", content)


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
:root { color-scheme: light dark; --ink: #222; --faint: #5c5c5c; --paper: #fff; --line: #d5d5d5; --shade: 59 47 143;
        --most: 0.5; --mark: #b2447c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --faint: #a5a5a5; --paper: #17171a; --line: #3c3c42; --shade: 150 138 255;
          --most: 0.6; --mark: #ff9ac9 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1.05rem; margin: 2.5rem 0 0 }
p { color: var(--faint); margin: .2rem 0 .6rem } p::first-letter { text-transform: uppercase }
button { font: inherit; font-size: .85rem; color: inherit; background: none; border: 1px solid var(--line);
         border-radius: 4px; margin: 0 .3rem .3rem 0; padding: .1rem .5rem; cursor: pointer }
button[aria-pressed=true] { border-color: rgb(var(--shade)); box-shadow: inset 0 0 0 1px rgb(var(--shade)) }
.text { font: .9rem/1.9 ui-monospace, monospace; border: 1px solid var(--line); border-radius: 4px; padding: .6rem;
        white-space: pre-wrap; overflow-wrap: anywhere }
.text span { padding: .15rem 1px; border-radius: 2px; cursor: default; box-shadow: inset 1px 0 var(--line) }
.text .here { outline: 2px solid var(--mark) }
.text .target { text-decoration: underline 2px var(--mark); text-underline-offset: .25em }
output { color: var(--faint); font-size: .85rem; display: block; min-height: 3.2em; white-space: pre-line }
</style>
<h1>TITLE</h1>
<p>Point at a token (or move to it with the tab key): the shade of the others is the head's attention from it. Click to
hold it. Thin lines part the tokens. Underlined: where the behaviour would have it look.</p>
<div id="direction" role="group" aria-label="direction"></div>
<main></main>
<script>
"use strict";
const examples = DATA;
const make = (tag, parent, text, name) => {
  const made = parent.appendChild(document.createElement(tag));
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const choose = (buttons, chosen) => buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === chosen)));
let backward = true;
const redraw = [];
const directions = ["what a token attends to", "what attends to a token"].map((name, i) => {
  const button = make("button", document.getElementById("direction"), name);
  button.onclick = () => { backward = i === 0; choose(directions, i); redraw.forEach(draw => draw()); };
  return button;
});
choose(directions, 0);
for (const example of examples) {
  const main = document.querySelector("main");
  make("h2", main, example.title);
  make("p", main, example.remark);
  const group = make("div", main), box = make("div", main, undefined, "text"), said = make("output", main);
  const patterns = example.heads.map(head => Uint8Array.from(atob(head.pattern), c => c.charCodeAt(0)));
  const at = (query, key) => key > query ? 0 : patterns[head][query * (query + 1) / 2 + key];
  let head = 0, here = example.targets.length ? example.targets[example.targets.length - 1][0] : 0, held = false;
  const shown = text => text === "" ? "\\u2205" : text.replace(/\\n/g, "\\u21b5\\n");
  const spans = example.tokens.map((text, i) => {
    const span = make("span", box, shown(text));
    span.tabIndex = 0;
    span.onmouseenter = () => { if (!held) { here = i; draw(); } };
    span.onfocus = () => { if (!held || here !== i) { held = false; here = i; draw(); } };
    span.onclick = () => { held = !(held && here === i); here = i; draw(); };
    return span;
  });
  const draw = () => {
    const [from, to] = backward ? [0, 1] : [1, 0];
    const wanted = new Set(example.targets.filter(pair => pair[from] === here).map(pair => pair[to]));
    const shares = spans.map((_, i) => backward ? at(here, i) : at(i, here));
    spans.forEach((span, i) => {
      const strength = Math.sqrt(shares[i] / 255).toFixed(3);  // so that small shares are seen
      span.style.background = shares[i] ? `rgb(var(--shade) / calc(${strength} * var(--most)))` : "";
      span.className = (i === here ? "here " : "") + (wanted.has(i) ? "target" : "");
      span.title = `${i}: ${(shares[i] / 255).toFixed(2)}`;
    });
    const onTarget = [...wanted].reduce((sum, i) => sum + shares[i], 0) / 255;
    const top = shares.map((s, i) => [s, i]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([s]) => s > 0)
      .map(([s, i]) => `${JSON.stringify(example.tokens[i])} ${(s / 255).toFixed(2)}`).join(", ");
    const marked = wanted.size ? `; on the underlined: ${onTarget.toFixed(2)}` : "";
    said.textContent = `Token ${here} ${JSON.stringify(example.tokens[here])}${held ? " (held)" : ""}: ` +
      `${top || "nothing"}${marked}.\\n${example.heads[head].name}: ${example.heads[head].remark}.`;
  };
  const buttons = example.heads.map((each, i) => {
    const button = make("button", group, each.name);
    button.title = each.remark;
    button.onclick = () => { head = i; choose(buttons, i); draw(); };
    return button;
  });
  choose(buttons, 0);
  redraw.push(draw);
  draw();
}
</script>
</html>
"""
