"use strict";
const examples = JSON.parse(document.getElementById("data").textContent);
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
  const shown = text => text === "" ? "\u2205" : text.replace(/\n/g, "\u21b5\n");
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
      `${top || "nothing"}${marked}.\n${example.heads[head].name}: ${example.heads[head].remark}.`;
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
