// Figures. Vega draws; smoothing, axes, crosshair and the run in front are here, so that all charts share them.
const unpack = ({ n, columns }) => {
  const keys = Object.keys(columns);
  return Array.from({ length: n }, (_, i) => {
    const row = {};
    for (const key of keys) {
      const column = columns[key];
      row[key] = Array.isArray(column) ? column[i] : column.texts[column.index[i]];
    }
    return row;
  });
};
const placeholders = {
  "@names": runs.map((run) => run.name), "@colours": runs.map((run) => run.colour), "@dashes": runs.map((run) => run.dash),
};
const filled = (part) => {
  if (Array.isArray(part)) return part.map(filled);
  if (part && typeof part === "object") return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, filled(value)]));
  return typeof part === "string" && Object.hasOwn(placeholders, part) ? placeholders[part] : part;
};
const style = () => {
  const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const text = { labelColor: of("--muted"), titleColor: of("--muted") };
  return {
    background: "transparent",
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
    view: { stroke: of("--line") },
    axis: { ...text, gridColor: of("--line"), domainColor: of("--muted"), tickColor: of("--muted"), titleFontWeight: 500 },
    legend: text,
  };
};

const toggles = $("#run-toggles");
const boxes = toggles ? $$("input[type=checkbox][value]", toggles) : [];
const slider = $("#smoothing");
const rawBox = $("#raw");
const calmOnly = $("#fit-healthy");
const look = { shown: new Set(boxes.filter((box) => box.checked).map((box) => box.value)), focus: "", pinned: null, zoom: null, raw: null };
const charts = new Map(); // element -> {spec of the figure, result of Vega, lines as drawn}
const ROWS_OF = 3, FEW = 60, LEAST = 5, ENOUGH = 15; // as in figures/thin.py and figures/printing.py
const withRows = () => look.raw ?? look.shown.size <= ROWS_OF;

// --- the numbers of a chart
const runningMean = (values, width) => {
  const n = values.length, w = Math.max(1, Math.min(width, n)), half = Math.floor(w / 2);
  const sums = new Float64Array(n + 1);
  for (let i = 0; i < n; i++) sums[i + 1] = sums[i] + values[i];
  return values.map((_, i) => {
    const low = Math.max(0, i - half), high = Math.min(n, i + w - half);
    return (sums[high] - sums[low]) / (high - low);
  });
};
const share = () => (slider ? +slider.value / 100 : 0.03);
const smoothLine = (line) => {
  const least = share() > 0 && !line.raw && line.means.length >= ENOUGH ? LEAST : 1;
  return runningMean(line.means, Math.max(least, Math.round(share() * line.means.length)));
};
const quantile = (sorted, q) => {
  const at = q * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
};
const axis = (values, raw, levels, scale, bounds) => {
  let low = Infinity, high = -Infinity, least = Infinity;
  for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); if (v > 0) least = Math.min(least, v); }
  if (!values.length) [low, high] = [0, 1];
  if (high - low <= 1e-9 * Math.max(Math.abs(high), Math.abs(low))) low = high = (low + high) / 2; // rounding is no spread
  const span = high - low;
  if (raw.length && span > 0) {
    const sorted = Float64Array.from(raw).sort();
    low = Math.min(low, Math.max(quantile(sorted, 0.02), low - 0.6 * span));
    high = Math.max(high, Math.min(quantile(sorted, 0.98), high + 0.6 * span));
  }
  const top = high + 0.6 * span;
  high = Math.max(high, ...levels.filter((level) => level > high && level <= top));
  if (scale === "log") return least < Infinity ? [least / 1.25, high * 1.25] : [0.1, 1];
  const pad = high > low ? 0.06 * (high - low) : 0.1 * Math.abs(high) || 0.1;
  [low, high] = [low - pad, high + pad];
  return bounds ? [Math.max(low, bounds[0] - 0.02), Math.min(high, bounds[1] + 0.02)] : [low, high];
};
const linesOf = (figure) => {
  figure.lines ??= (figure.packed ?? []).map(([run, series, steps, means, raw]) => ({
    run: runs[run].name, series: figure.series[series], steps, means, raw: raw ? { steps: raw[0], values: raw[1] } : null,
  }));
  return figure.lines;
};
const holds = (figure) => (figure.holds ??= new Set([
  ...linesOf(figure).map((line) => line.run), ...(figure.rows.evals ? unpack(figure.rows.evals).map((row) => row.run) : []),
]));
const stepsOnShow = (figure) => {
  if (look.zoom) return look.zoom;
  let low = Infinity, high = -Infinity;
  for (const name of holds(figure)) {
    const { steps } = runOf.get(name);
    if (look.shown.has(name) && steps) { low = Math.min(low, steps[0]); high = Math.max(high, steps[1]); }
  }
  return low > high ? [0, 1] : [low, Math.max(high, low + 1)];
};
const within = (steps, values, [low, high]) => values.filter((_, i) => steps[i] >= low && steps[i] <= high);

// All that Vega is given: rows by name, and the ends of the axes.
const content = (figure) => {
  const here = (row) => look.shown.has(row.run);
  const lines = linesOf(figure).filter(here);
  const range = stepsOnShow(figure);
  const rows = { calm: [], raw: [], dots: [], front: [] };
  const evals = figure.rows.evals ? unpack(figure.rows.evals).filter(here) : [];
  const few = new Set(lines.map((line) => line.run)).size <= ROWS_OF || look.raw === true;
  const drawn = [], means = [], thin = [];
  const spared = calmOnly?.checked && [...look.shown].some((name) => runOf.get(name).verdict !== "collapsed");
  for (const line of lines) {
    const { run, series, steps } = line;
    const calm = smoothLine(line);
    const points = steps.map((step, i) => ({ run, series, step, value: calm[i] }));
    rows.calm.push(...points);
    if (run === look.focus) rows.front.push(...points);
    drawn.push({ run, series, steps, values: calm });
    const raw = line.raw ?? { steps, values: line.means };
    const single = raw.steps.map((step, i) => ({ run, series, step, value: raw.values[i] }));
    if (withRows() && few) rows.raw.push(...single);
    if (raw.steps.length <= FEW && ((withRows() && few) || raw.steps.length <= 20)) rows.dots.push(...single);
    if (spared && runOf.get(run).verdict === "collapsed") continue;
    means.push(...within(steps, calm, range));
    if (withRows() && few) thin.push(...within(raw.steps, raw.values, range));
  }
  for (const e of evals) if (e.step >= range[0] && e.step <= range[1]) means.push(...[e.low, e.high, e.value].filter((v) => v !== null));
  for (const run of new Set(evals.map((e) => e.run))) {
    const mine = evals.filter((e) => e.run === run);
    drawn.push({ run, series: "accuracy", steps: mine.map((e) => e.step), values: mine.map((e) => e.value), of: mine });
  }
  if (figure.rows.evals) rows.evals = evals;
  rows.limits = figure.limits.map(([run, value]) => ({ run: runs[run].name, value })).filter(here);
  const there = runs.filter((run) => look.shown.has(run.name) && holds(figure).has(run.name));
  rows.onsets = there.filter((run) => run.onset !== null).map((run) => ({ run: run.name, step: run.onset }));
  rows.bests = there.filter((run) => run.best !== null).map((run) => ({ run: run.name, step: run.best }));
  rows.bests = rows.bests.filter((row) => row.step >= range[0] && row.step <= range[1]); // drawn above the frame: nothing clips them
  rows.checkpoints = there.flatMap((run) => run.checkpoints.map((step) => ({ run: run.name, step })));
  const [y0, y1] = axis(means, thin, rows.limits.map((row) => row.value), figure.scale, figure.bounds);
  return { rows, drawn, signals: { x0: range[0], x1: range[1], y0, y1, focus: look.focus } };
};

// --- drawing
const draw = async (element) => {
  const figure = data.figures[element.dataset.figure];
  const spec = filled(figure.spec);
  delete spec.title; // the page has it as text
  const mode = { mode: "vega-lite", actions: false, renderer: "canvas", config: style(), tooltip: { theme: dark() ? "dark" : "light" } };
  if (!figure.perRun) {
    const datasets = Object.fromEntries(Object.entries(figure.rows).map(([name, packed]) => [name, unpack(packed)]));
    charts.set(element, { figure, result: await window.vegaEmbed($(".canvas", element), { ...spec, datasets }, mode) });
  } else {
    const { rows, drawn, signals } = content(figure);
    spec.params = spec.params.map((param) => ({ ...param, value: signals[param.name] ?? param.value }));
    const used = new Set(spec.layer.map((layer) => layer.data.name));
    const datasets = Object.fromEntries(Object.entries(rows).filter(([name]) => used.has(name)));
    const result = await window.vegaEmbed($(".canvas", element), { ...spec, datasets }, mode);
    charts.set(element, { figure, result, drawn, used });
  }
  element.dataset.drawn = "yes";
};
const drawSafely = (element) => draw(element).catch((error) => {
  element.dataset.drawn = "no";
  $(".canvas", element).textContent = `This figure could not be drawn: ${error.message}`;
});
const refresh = (element) => {
  const chart = charts.get(element);
  if (!chart?.figure.perRun) return;
  const { rows, drawn, signals } = content(chart.figure);
  const { view } = chart.result;
  chart.drawn = drawn;
  for (const name of chart.used) view.data(name, rows[name] ?? []);
  for (const [name, value] of Object.entries(signals)) view.signal(name, value);
  view.runAsync();
};
const near = new Set(); // charts on or close to the screen; the others wait
const stale = new Set();
const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) near.add(target); else near.delete(target);
    if (!isIntersecting) continue;
    if (!target.dataset.drawn) { target.dataset.drawn = ""; drawSafely(target); } else if (stale.delete(target)) refresh(target);
  }
}, { rootMargin: "700px" });
const every = $$(".chart");
every.forEach((element) => { delete element.dataset.drawn; seen.observe(element); });
onTheme.push(() => { for (const [element, { result }] of charts) { result.finalize(); drawSafely(element); } });
let asked = false;
const refreshAll = () => { // at most once a frame
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    for (const element of charts.keys()) if (near.has(element)) refresh(element); else stale.add(element);
  });
};

// --- runs on show
const apply = () => {
  look.shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  document.body.dataset.shown = look.shown.size;
  if (look.pinned && !look.shown.has(look.pinned.run)) letGo();
  for (const element of every) {
    const figure = data.figures[element.dataset.figure];
    if (figure.perRun) element.hidden = ![...holds(figure)].some((name) => look.shown.has(name));
    else if (figure.run !== null) element.hidden = boxes.length > 0 && !look.shown.has(figure.run);
  }
  for (const group of $$(".chart-group")) group.hidden = $$(".chart", group).every((element) => element.hidden);
  for (const note of $$(".nothing-shown")) note.hidden = $$(".chart", note.parentElement).some((element) => !element.hidden);
  if (rawBox && look.raw === null) rawBox.checked = withRows();
  refreshAll();
};
toggles?.addEventListener("change", (event) => {
  if (event.target.matches("input[type=checkbox][value]")) apply();
});
toggles?.addEventListener("click", (event) => {
  const pick = event.target.dataset?.pick;
  if (!pick) return;
  for (const box of boxes) box.checked = found(box.value) && (pick === "all" || box.dataset.verdict === pick);
  apply();
});
slider?.addEventListener("input", () => { $("#smoothing-share").textContent = `${slider.value} %`; refreshAll(); });
rawBox?.addEventListener("change", () => { look.raw = rawBox.checked; refreshAll(); });
calmOnly?.addEventListener("change", refreshAll);
const zoomTo = (range) => { look.zoom = range; $("#whole").hidden = range === null; refreshAll(); };
$("#whole")?.addEventListener("click", () => zoomTo(null));

// --- one run in front
const bar = $("#in-front");
const bring = (name) => { if (look.focus !== name) { look.focus = name; refreshAll(); } };
const letGo = () => {
  look.pinned = null;
  if (bar) bar.replaceChildren();
  bring("");
};
const pin = (run, step, what) => {
  look.pinned = { run, step };
  const known = runOf.get(run);
  const text = node("span", "", step === null ? "" : `step ${whole(step)}${what ? `: ${what}` : ""}`);
  const parts = [swatch(known), node("b", "name", known.short), node("span", `chip ${known.verdict}`, known.verdict), text];
  if (known.samples) {
    const link = node("a", "to-samples", step === null ? "its samples" : "samples near this step");
    link.href = "#samples";
    link.dataset.of = run;
    if (step !== null) link.dataset.near = Math.round(step);
    parts.push(link);
  }
  const details = node("a", "", "verdict");
  details.href = `#${known.id}`;
  const close = node("button", "", "Send back");
  close.type = "button";
  close.addEventListener("click", letGo);
  bar.replaceChildren(...parts, details, close);
  bring(run);
};
for (const label of $$(".toggle")) {
  const name = label.dataset.run;
  label.addEventListener("pointerenter", () => { if (look.shown.has(name)) bring(name); });
  label.addEventListener("pointerleave", () => bring(look.pinned?.run ?? ""));
  $("input", label).addEventListener("focus", (event) => { if (event.target.matches(":focus-visible") && look.shown.has(name)) bring(name); });
  $("input", label).addEventListener("blur", () => bring(look.pinned?.run ?? ""));
  const toFront = (event) => {
    event.preventDefault();
    const box = $("input", label);
    if (!box.checked) { box.checked = true; apply(); }
    if (look.pinned?.run === name) letGo(); else pin(name, null);
  };
  $(".front", label).addEventListener("click", toFront);
  $("input", label).addEventListener("keydown", (event) => { if (event.key === "Enter") toFront(event); });
}

// --- crosshair: one step in all charts; values, nearest first, in the one that is pointed at
const place = (element) => {
  const { view } = charts.get(element).result;
  const canvas = $("canvas", element);
  const box = canvas.getBoundingClientRect(), outer = element.getBoundingClientRect();
  const [x, y] = view.origin(), padding = view.padding();
  return { view, left: box.left - outer.left + x + padding.left, top: box.top - outer.top + y + padding.top, width: view.width(), height: view.height() };
};
const crossAt = (step) => {
  for (const element of near) {
    const chart = charts.get(element);
    if (!chart?.figure.perRun || element.hidden) continue;
    let cross = $(".cross", element);
    if (!cross) element.append((cross = node("div", "cross")));
    const at = place(element);
    const x = at.view.scale("x")(step);
    cross.hidden = step === null || x < 0 || x > at.width;
    Object.assign(cross.style, { left: `${at.left + x}px`, top: `${at.top}px`, height: `${at.height}px` });
  }
};
const nearest = (steps, step) => {
  let low = 0, high = steps.length - 1;
  while (low < high) { const middle = (low + high) >> 1; if (steps[middle] < step) low = middle + 1; else high = middle; }
  return low > 0 && step - steps[low - 1] < steps[low] - step ? low - 1 : low;
};
const valuesAt = (element, step, y) => {
  const { view, height } = place(element);
  const chart = charts.get(element);
  const slack = (view.signal("x1") - view.signal("x0")) / 50;
  return chart.drawn
    .filter(({ steps }) => steps.length && step >= steps[0] - slack && step <= steps[steps.length - 1] + slack)
    .map((line) => {
      const i = nearest(line.steps, step);
      const at = view.scale("y")(line.values[i]);
      return { ...line, step: line.steps[i], value: line.values[i], e: line.of?.[i], far: Math.abs((Number.isFinite(at) ? at : height) - y) };
    })
    .sort((a, b) => a.far - b.far);
};
const MOST_READ = 7;
const read = (element, step, y) => {
  let box = $(".readout", element);
  if (!box) {
    element.append((box = node("div", "readout")));
    box.setAttribute("role", "status");
  }
  const list = valuesAt(element, step, y);
  const several = data.figures[element.dataset.figure].series.length > 1;
  const [first, last] = stepsOnShow(data.figures[element.dataset.figure]);
  const lines = list.slice(0, MOST_READ).map((item) => {
    const line = node("div", item.run === look.focus ? "in-front" : "");
    const interval = item.e && item.e.low !== null ? ` [${number(item.e.low)}, ${number(item.e.high)}], n = ${whole(item.e.n)}` : "";
    line.append(swatch(runOf.get(item.run)), node("span", "name", runOf.get(item.run).short), node("b", "", number(item.value) + interval));
    if (Math.abs(item.step - step) > (last - first) / 60) line.append(node("small", "", `at ${whole(item.step)}`)); // few rows: the nearest
    if (several && !item.e) line.append(node("small", "", item.series));
    return line;
  });
  const marks = [...look.shown].map((name) => runOf.get(name)).flatMap((run) => [
    [run.onset, `${run.verdict} from step ${whole(run.onset ?? 0)}`], [run.best, `best checkpoint, step ${whole(run.best ?? 0)}`],
  ].filter(([at]) => at !== null && Math.abs(at - step) <= (last - first) / 100).map(([, text]) => node("div", "mark-text", `${run.short}: ${text}`)));
  const more = list.length > MOST_READ ? [node("small", "", `and ${list.length - MOST_READ} more`)] : [];
  box.replaceChildren(node("div", "step", `step ${whole(step)}`), ...lines, ...more, ...marks.slice(0, 3));
  box.hidden = false;
  const at = place(element);
  const x = at.left + at.view.scale("x")(step);
  const right = x < element.clientWidth / 2;
  Object.assign(box.style, { left: right ? `${x + 12}px` : "auto", right: right ? "auto" : `${element.clientWidth - x + 12}px`, top: `${at.top + 6}px` });
  return list;
};
const unread = () => { for (const box of $$(".readout")) box.hidden = true; for (const cross of $$(".cross")) cross.hidden = true; };
const choose = (element, list) => {
  const hit = list[0];
  if (!hit) return;
  if (look.pinned?.run === hit.run && look.pinned.step === hit.step) { letGo(); return; }
  const several = data.figures[element.dataset.figure].series.length > 1 && !hit.e;
  pin(hit.run, hit.step, `${several ? hit.series : $("figcaption", element).textContent} ${number(hit.value)}`);
};

const pointed = (element, event) => {
  const at = place(element), outer = element.getBoundingClientRect();
  const x = event.clientX - outer.left - at.left, y = event.clientY - outer.top - at.top;
  const inside = x >= -4 && x <= at.width + 4 && y >= -8 && y <= at.height + 4;
  return inside ? { step: at.view.scale("x").invert(Math.max(0, Math.min(at.width, x))), x, y, at } : null;
};
for (const element of every.filter((one) => data.figures[one.dataset.figure].perRun)) {
  const canvas = $(".canvas", element);
  let start = null, band = null, cursor = null;
  const stop = () => { start = null; band?.remove(); band = null; };
  canvas.addEventListener("pointermove", (event) => {
    if (!charts.has(element)) return;
    const here = pointed(element, event);
    if (!here) { if (!start) unread(); return; }
    crossAt(here.step);
    read(element, here.step, here.y);
    if (start && Math.abs(here.x - start.x) > 6) {
      if (!band) element.append((band = node("div", "band")));
      const left = Math.min(here.x, start.x);
      Object.assign(band.style, { left: `${here.at.left + left}px`, width: `${Math.abs(here.x - start.x)}px`, top: `${here.at.top}px`, height: `${here.at.height}px` });
    }
  });
  canvas.addEventListener("pointerleave", () => { stop(); unread(); });
  canvas.addEventListener("pointerdown", (event) => { if (event.button === 0 && charts.has(element)) start = pointed(element, event); });
  canvas.addEventListener("pointerup", (event) => {
    const here = charts.has(element) && start ? pointed(element, event) : null;
    const from = start;
    const zooming = band !== null;
    stop();
    if (!here || !from) return;
    if (zooming) zoomTo([Math.min(from.step, here.step), Math.max(from.step, here.step)]);
    else choose(element, valuesAt(element, here.step, here.y));
  });
  canvas.addEventListener("dblclick", () => zoomTo(null));
  canvas.addEventListener("keydown", (event) => {
    if (!charts.has(element)) return;
    const [low, high] = stepsOnShow(data.figures[element.dataset.figure]);
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) cursor = Math.max(low, Math.min(high, (cursor ?? (low + high) / 2) + (move * (high - low)) / 50));
    else if (event.key === "Enter" && cursor !== null) { choose(element, valuesAt(element, cursor, 0)); return; }
    else if (event.key === "Escape") { letGo(); unread(); return; }
    else return;
    event.preventDefault();
    crossAt(cursor);
    read(element, cursor, 0);
  });
  canvas.addEventListener("blur", unread);
}
apply();
addEventListener("beforeprint", () => every.filter((element) => !element.dataset.drawn && !element.hidden).forEach(drawSafely));
