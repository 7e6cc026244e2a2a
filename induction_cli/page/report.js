"use strict";
const $ = id => document.getElementById(id);

// ---------------------------------------------------------------- light and dark

const theme = $("theme"), system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
const themed = [];
const showTheme = dark => {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  theme.textContent = dark ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Use ${dark ? "light" : "dark"} colours`);
  themed.forEach(draw => draw());
};
theme.removeAttribute("aria-pressed");
theme.onclick = () => showTheme(!isDark());
system.addEventListener("change", () => showTheme(system.matches));
showTheme(isDark());

// ---------------------------------------------------------------- plots

const zoom = $("zoom"), enlarged = zoom.querySelector(".enlarged");
for (const button of document.querySelectorAll(".paper")) {
  const title = (button.querySelector("svg, img").getAttribute("aria-label") || button.querySelector("svg, img").alt || "").trim();
  button.setAttribute("aria-label", `Enlarge the plot: ${title}`);
  button.onclick = () => {
    enlarged.replaceChildren(button.firstElementChild.cloneNode(true));
    zoom.setAttribute("aria-label", title);
    zoom.showModal();
  };
}
zoom.onclick = event => { if (event.target === zoom || enlarged.contains(event.target)) zoom.close(); };
addEventListener("hashchange", () => openAround(location.hash));
const openAround = hash => {
  for (let at = hash && $(hash.slice(1).split("/")[0]); at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
};
openAround(location.hash);

// ---------------------------------------------------------------- the head explorer

const runs = JSON.parse($("data").textContent);
if (runs.length) explore();

function explore() {
  const [runBox, measureBox, textBox, directionBox] = ["x-run", "x-measure", "x-text", "x-direction"].map($);
  const slider = $("x-slider"), mosaic = $("x-mosaic"), tokens = $("x-tokens"), canvas = $("x-pattern");
  const INDIGO = [59, 47, 143], ORANGE = [213, 94, 0];
  const MANY = 6;  // heads in a row from which their cells are narrow
  const KINDS = { induction: "induction", previous_token: "prev. token" };
  const words = name => name.replace(/_/g, " ");
  const short = n => {  // as words.py writes counts
    for (const [unit, size] of [["", 1], ["k", 1e3], ["M", 1e6], ["B", 1e9], ["T", 1e12]]) {
      const written = Number((n / size).toPrecision(3));
      if (Math.abs(written) < 1000 || unit === "T") return written + unit;
    }
  };
  const moment = at => run.tokens[at] === null ? "" : ` at ${short(run.tokens[at])} tokens`;
  const make = (tag, parent, text, name) => {
    const made = parent.appendChild(document.createElement(tag));
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const fill = (box, names) => box.replaceChildren(...names.map((name, i) => new Option(name, i)));
  let run, measure, values, low, high, head, here = 0, held = false, cells = [], spans = [], unpacked = new Map();

  const headName = i => `L${Math.floor(i / run.heads)}H${i % run.heads}`;
  const place = () => Number(slider.value);
  const nearest = () => run.kept.reduce((best, at) => Math.abs(at - place()) < Math.abs(best - place()) ? at : best, run.kept[0]);
  const pattern = () => {
    const packed = run.patterns[run.kept.indexOf(nearest())][textBox.value][head];
    if (!unpacked.has(packed)) unpacked.set(packed, Uint8Array.from(atob(packed), c => c.charCodeAt(0)));
    return unpacked.get(packed);
  };

  const chooseRun = () => {
    const before = measure;
    run = runs[runBox.value];
    unpacked = new Map();
    const names = Object.keys(run.measures);
    fill(measureBox, names.map(words));
    measureBox.value = Math.max(0, names.indexOf(before));
    slider.max = run.steps.length - 1;
    slider.value = slider.max;
    fill(textBox, run.texts.map(text => text.title));
    const last = run.measures[names[0]].at(-1).map(v => v ?? -Infinity);
    head = last.indexOf(Math.max(...last));
    build();
    chooseMeasure();
    chooseText();
  };

  const chooseMeasure = () => {
    measure = Object.keys(run.measures)[measureBox.value];
    values = run.measures[measure];
    [low, high] = run.scales[measure];  // the measure's own, so that chance looks like chance
    $("x-definition").textContent = run.definitions[measure] || "";
    $("x-mosaic-title").textContent = `${words(measure)[0].toUpperCase()}${words(measure).slice(1)} of every head`;
    $("x-scale").textContent = `Colour from 0 (white) to ${Number(high.toFixed(2))} (indigo)` + (low < 0 ? ` and to ${Number(low.toFixed(2))} (orange)` : "") + ".";
    curves();
    draw();
  };

  const build = () => {
    mosaic.replaceChildren();
    mosaic.classList.toggle("many", run.heads > MANY);
    cells = [];
    for (let layer = 0; layer < run.layers; layer++) {
      const row = make("div", mosaic);
      row.setAttribute("role", "row");
      row.style.gridTemplateColumns = `1.6rem repeat(${run.heads}, minmax(0, 1fr))`;
      make("span", row, `L${layer}`).setAttribute("role", "rowheader");
      for (let h = 0; h < run.heads; h++) {
        const i = cells.length, cell = make("button", row);
        cell.type = "button";
        cell.setAttribute("role", "gridcell");
        cell.onclick = () => { head = i; draw(); curves(); remember(); };
        cell.onkeydown = event => {
          const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -run.heads, ArrowDown: run.heads }[event.key];
          const to = i + step;
          if (step === undefined || to < 0 || to >= cells.length) return;
          event.preventDefault();
          head = to;
          draw();
          curves();
          remember();
          cells[to].focus();
        };
        cells.push(cell);
      }
    }
  };

  const curves = () => {
    const n = values.length, x = i => n > 1 ? 1000 * i / (n - 1) : 500, y = v => 98 - 96 * (v - low) / (high - low);
    for (const part of document.querySelectorAll("#explorer .chart, #explorer .axis, #explorer .slide")) part.hidden = n < 2;
    const at = t => {  // tokens on the slider's axis, which counts snapshots
      const i = run.tokens.findIndex(u => u >= t);
      if (i <= 0) return x(Math.max(0, i));
      return x(i - 1 + (t - run.tokens[i - 1]) / (run.tokens[i] - run.tokens[i - 1]));
    };
    const line = i => values.map((row, s) => row[i] === null ? "" : `${s && values[s - 1][i] !== null ? "L" : "M"}${x(s).toFixed(1)} ${y(row[i]).toFixed(1)}`).join("");
    const bands = run.windows.map(([a, b]) => `<rect class="band" x="${at(a)}" y="0" width="${Math.max(2, at(b) - at(a))}" height="100"/>`).join("");
    const paths = cells.map((_, i) => i === head ? "" : `<path d="${line(i)}"/>`).join("") + `<path class="on" d="${line(head)}"/>`;
    $("x-curves").innerHTML = `<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="${words(measure)} of every head over training">${bands}${paths}<line x1="0" x2="0" y1="0" y2="100"/></svg>`;
    const ticks = [...new Set([0, 0.25, 0.5, 0.75, 1].map(share => Math.round(share * (n - 1))))];
    $("x-axis").replaceChildren();
    for (const i of ticks) {
      const tick = make("span", $("x-axis"), short(run.tokens[i] ?? run.steps[i]));
      tick.style.left = `${x(i) / 10}%`;
    }
    for (const [id, end] of [["x-high", high], ["x-low", low]]) $(id).textContent = Number(end.toFixed(2));
    cursor();
  };
  const cursor = () => {
    const line = $("x-curves").querySelector("line"), x = slider.max > 0 ? 1000 * place() / slider.max : 500;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  };

  const colour = v => {
    const share = Math.min(1, v < 0 ? v / low : v / high), end = v < 0 ? ORANGE : INDIGO;
    const mixed = end.map(c => Math.round(255 + (c - 255) * share));
    const light = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2];
    return [`rgb(${mixed})`, light < 150 ? "#fff" : "#1f2328"];
  };

  const draw = () => {
    const inside = run.windows.some(([a, b]) => run.tokens[place()] >= a && run.tokens[place()] <= b);
    const said = `${short(run.tokens[place()] ?? 0)} tokens, step ${run.steps[place()]}, snapshot ${place() + 1} of ${run.steps.length}` + (inside ? ", inside the phase change (shaded)" : run.windows.length ? "; the phase change is shaded" : "; no phase change was found");
    $("x-when").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    cursor();
    cells.forEach((cell, i) => {
      const v = values[place()][i], kind = KINDS[run.kinds[i]];
      const [back, ink] = v === null ? ["var(--raised)", "var(--faint)"] : colour(v);
      cell.style.background = back;
      cell.style.color = ink;
      cell.textContent = v === null ? "–" : run.heads > MANY ? v.toFixed(2).replace("0.", ".") : v.toFixed(2);
      if (kind && run.heads <= MANY) make("small", cell, kind);
      cell.setAttribute("aria-label", `${headName(i)}: ${v === null ? "no value" : v.toFixed(2)}${kind ? ", " + kind + " head at the end" : ""}`);
      cell.setAttribute("aria-selected", String(i === head));
      cell.tabIndex = i === head ? 0 : -1;
    });
    attend();
    matrix();
  };

  const chooseText = () => {
    const text = run.texts[textBox.value];
    $("x-about").textContent = text ? text.about : "";
    tokens.replaceChildren();
    if (!text || !run.kept.length) { $("x-said").textContent = "No attention was stored for this run."; canvas.hidden = true; $("x-pattern-note").hidden = true; return; }
    canvas.hidden = $("x-pattern-note").hidden = false;
    held = false;
    here = text.ids.length - 1;
    for (let i = here; i > 0; i--) if (follows(text.ids, i).length) { here = i; break; }
    spans = text.tokens.map((piece, i) => {
      const span = make("span", tokens, piece === "" ? "\u2205" : piece.replace(/\n/g, "\u21b5\n"));
      span.onmouseenter = () => { if (!held) { here = i; attend(); } };
      span.onclick = () => { held = !(held && here === i); here = i; attend(); };
      span.onfocus = () => { here = i; attend(); };
      span.onkeydown = event => {
        const to = i + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || 0);
        if (to === i || to < 0 || to >= spans.length) return;
        event.preventDefault();
        held = false;
        spans[to].focus();
      };
      return span;
    });
    attend();
    matrix();
  };

  // where an induction head would look from a token: behind its earlier occurrences
  const follows = (ids, query) => ids.map((_, key) => key).filter(key => key > 0 && key <= query && ids[key - 1] === ids[query]);

  const attend = () => {
    const text = run.texts[textBox.value];
    if (!text || !spans.length || !run.kept.length) return;
    const shares = pattern(), out = directionBox.value === "out";
    const at = (query, key) => key > query ? 0 : shares[query * (query + 1) / 2 + key] / 255;
    const wanted = out ? follows(text.ids, here) : text.ids.map((_, query) => query).filter(query => follows(text.ids, query).includes(here));
    const seen = spans.map((_, i) => out ? at(here, i) : at(i, here));
    spans.forEach((span, i) => {
      span.style.background = seen[i] ? `rgb(var(--shade) / ${(0.75 * seen[i]).toFixed(3)})` : "";
      span.classList.toggle("here", i === here);
      span.classList.toggle("next", wanted.includes(i));
      span.tabIndex = i === here ? 0 : -1;
      span.title = seen[i].toFixed(2);
    });
    const name = i => JSON.stringify(text.tokens[i]);
    const top = seen.map((s, i) => [s, i]).sort((a, b) => b[0] - a[0]).slice(0, 3).filter(([s]) => s > 0.005).map(([s, i]) => `${name(i)} ${s.toFixed(2)}`).join(", ");
    const marked = wanted.reduce((sum, i) => sum + seen[i], 0);
    $("x-head").textContent = `Attention of ${headName(head)}${moment(nearest())}`;
    $("x-said").textContent = `Token ${here}, ${name(here)}${held ? " (held; click to let go)" : ""}, ${out ? "attends to" : "is attended to by"}: ${top || "nothing much"}.` +
      (wanted.length ? ` On the underlined, where an induction head would ${out ? "look" : "look from"}: ${marked.toFixed(2)}.` : "") +
      (nearest() !== place() ? " Attention is stored for some snapshots only; this is the nearest." : "");
  };

  const matrix = () => {
    const text = run.texts[textBox.value];
    if (!text || !run.kept.length) return;
    const n = text.ids.length, shares = pattern(), context = canvas.getContext("2d");
    canvas.width = canvas.height = n;
    const image = context.createImageData(n, n), ink = isDark() ? [190, 182, 255] : INDIGO;
    for (let query = 0; query < n; query++) for (let key = 0; key <= query; key++) {
      const at = 4 * (query * n + key);
      image.data.set([...ink, shares[query * (query + 1) / 2 + key]], at);
    }
    context.putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", `Attention pattern of ${headName(head)} on the text, ${n} by ${n} tokens`);
  };
  themed.push(matrix);

  // ---- the view in the address, so that it can be sent: #heads/run=0&head=L1H3&snapshot=12&measure=prefix_matching&text=1

  const remember = () => {
    const view = { run: runBox.value, head: headName(head), snapshot: place() + 1, measure, text: textBox.value };
    history.replaceState(null, "", `#heads/${new URLSearchParams(view)}`);
  };
  const recall = () => {
    if (!location.hash.startsWith("#heads/")) return;
    const view = new URLSearchParams(location.hash.slice("#heads/".length));
    const whole = (name, least, most) => /^\d+$/.test(view.get(name)) ? Math.min(most, Math.max(least, Number(view.get(name)))) : null;
    runBox.value = whole("run", 0, runs.length - 1) ?? 0;
    chooseRun();
    const wanted = Object.keys(run.measures).indexOf(view.get("measure")), named = /^L(\d+)H(\d+)$/.exec(view.get("head") || "");
    if (wanted >= 0) measureBox.value = wanted;
    if (named && named[1] < run.layers && named[2] < run.heads) head = named[1] * run.heads + Number(named[2]);
    if (run.texts.length) textBox.value = whole("text", 0, run.texts.length - 1) ?? 0;
    slider.value = (whole("snapshot", 1, run.steps.length) ?? run.steps.length) - 1;
    chooseMeasure();
    chooseText();
    $("heads").scrollIntoView();
  };

  fill(runBox, runs.map(one => one.name));
  const then = (choose, also) => () => { choose(); also(); };
  runBox.onchange = then(chooseRun, remember);
  measureBox.onchange = then(chooseMeasure, remember);
  textBox.onchange = then(chooseText, remember);
  directionBox.onchange = attend;
  slider.oninput = then(draw, remember);
  chooseRun();
  recall();
  addEventListener("hashchange", recall);
}
