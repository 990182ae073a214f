"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const node = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text; // never innerHTML: texts come from models
    return made;
  };

  // --- figures
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
  const style = () => {
    const of = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const text = { labelColor: of("--muted"), titleColor: of("--muted") };
    return {
      background: "transparent",
      font: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif",
      view: { stroke: of("--line") },
      axis: { ...text, gridColor: of("--line"), domainColor: of("--muted"), tickColor: of("--muted"), titleFontWeight: 500 },
      legend: text,
      title: { color: of("--ink"), fontWeight: 600 },
    };
  };
  const shown = () => $$("#run-toggles input:checked").map((box) => box.value);
  const views = new Map();
  const draw = async (figure) => {
    const { spec, rows, perRun } = data.figures[figure.dataset.figure];
    const datasets = Object.fromEntries(Object.entries(rows).map(([name, packed]) => [name, unpack(packed)]));
    const filled = { ...spec, datasets, autosize: { type: "fit-x", contains: "padding" } };
    const result = await window.vegaEmbed($(".canvas", figure), filled, {
      mode: "vega-lite", actions: false, renderer: "canvas", config: style(), tooltip: { theme: dark() ? "dark" : "light" },
    });
    views.set(figure, result);
    figure.dataset.drawn = "yes";
    if (perRun) await result.view.signal("shown", shown()).runAsync();
  };
  const drawSafely = (figure) => draw(figure).catch((error) => {
    $(".canvas", figure).textContent = `This figure could not be drawn: ${error.message}`;
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); drawSafely(entry.target); }
  }, { rootMargin: "800px" });
  $$(".chart").forEach((figure) => seen.observe(figure));
  const redraw = () => { for (const [figure, result] of views) { result.finalize(); drawSafely(figure); } };

  // --- runs on show
  const toggles = $("#run-toggles");
  const apply = () => {
    const names = shown();
    document.body.dataset.shown = names.length;
    for (const [figure, result] of views) {
      if (data.figures[figure.dataset.figure].perRun) result.view.signal("shown", names).runAsync();
    }
  };
  toggles?.addEventListener("change", apply);
  toggles?.addEventListener("click", (event) => {
    const pick = event.target.dataset?.pick;
    if (!pick) return;
    for (const box of $$("input", toggles)) box.checked = pick === "all" || box.dataset.verdict === pick;
    apply();
  });
  apply();

  // --- theme
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => document.documentElement.dataset.theme;
  const dark = () => (chosen() ? chosen() === "dark" : system.matches);
  $("#theme").addEventListener("click", () => {
    const next = { undefined: "light", light: "dark", dark: undefined }[chosen()];
    if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
    $("#theme").textContent = `Theme: ${next ?? "auto"}`;
    redraw();
  });
  system.addEventListener("change", redraw);

  // --- find a run
  $("#find-run")?.addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of $$(".verdict-row")) row.hidden = !row.dataset.run.toLowerCase().includes(wanted);
    for (const row of $$("details.run")) row.hidden = !$(".name", row).textContent.toLowerCase().includes(wanted);
  });

  // --- samples
  const outcome = (sample) => (sample.correct === true ? "right" : sample.correct === false ? "wrong" : "unknown");
  const reward = (sample) => sample.normalized_reward ?? sample.reward;
  const number = (value) => (value === undefined ? "–" : Number(value).toPrecision(3).replace(/\.?0+$/, ""));
  const marked = (className, text, answer) => {
    const made = node("div", `text ${className}`);
    made.tabIndex = 0;
    const wanted = (answer ?? "").trim();
    const parts = wanted && wanted.length < 40 ? text.split(wanted) : [text];
    if (parts.length > 400) { made.textContent = text; return made; }
    parts.forEach((part, i) => {
      if (i) made.append(node("mark", "", wanted));
      made.append(part);
    });
    return made;
  };
  const card = (sample) => {
    const made = node("article", `sample ${outcome(sample)}`);
    const head = node("header");
    head.append(node("b", "", sample.run), node("span", "", `step ${sample.step.toLocaleString("en")}`));
    if (sample.correct !== undefined) head.append(node("span", `${outcome(sample)}-text`, sample.correct ? "✓ right" : "✕ wrong"));
    for (const [key, name] of [["reward", "reward"], ["normalized_reward", "normalised"], ["advantage", "advantage"], ["cot_tokens", "CoT tokens"]]) {
      if (sample[key] !== undefined) head.append(node("span", "", `${name} ${number(sample[key])}`));
    }
    head.append(node("span", "", `${sample.source}, line ${sample.line.toLocaleString("en")}`));
    made.append(head, node("h4", "", "Question"), marked("question", sample.question));
    const pair = node("div", sample.baseline_cot === undefined ? "pair single" : "pair");
    const side = (title, text) => {
      const column = node("div");
      column.append(node("h4", "", title), marked("", text, sample.answer));
      pair.append(column);
    };
    side("CoT of the trained model", sample.cot);
    if (sample.baseline_cot !== undefined) side("CoT of the frozen model", sample.baseline_cot);
    made.append(pair, node("h4", "", "Gold answer"), marked("", sample.answer));
    return made;
  };
  const form = $("#sample-filter");
  if (form) {
    const PAGE = 12;
    let limit = PAGE;
    const lower = data.samples.map((s) => `${s.question}\n${s.cot}\n${s.answer}`.toLowerCase());
    const chosenSamples = () => {
      const f = Object.fromEntries(new FormData(form));
      const text = f.text.toLowerCase();
      const list = data.samples.filter((s, i) =>
        (!f.run || s.run === f.run) && (!f.outcome || outcome(s) === f.outcome) &&
        (f.from === "" || s.step >= +f.from) && (f.to === "" || s.step <= +f.to) && (!text || lower[i].includes(text)));
      const by = { step: (a, b) => a.step - b.step, worst: (a, b) => reward(a) - reward(b), best: (a, b) => reward(b) - reward(a) }[f.order];
      return (f.order === "step" ? list : list.filter((s) => reward(s) !== undefined)).sort(by);
    };
    const show = () => {
      const list = chosenSamples();
      $("#sample-list").replaceChildren(...list.slice(0, limit).map(card));
      $("#sample-count").textContent = `${list.length.toLocaleString("en")} samples${list.length > limit ? `, ${limit} on show` : ""}`;
      $("#more-samples").hidden = list.length <= limit;
    };
    form.addEventListener("input", () => { limit = PAGE; show(); });
    $("#more-samples").addEventListener("click", () => { limit += PAGE; show(); });
    show();
  }

  // --- configurations, links into closed parts, printing
  document.addEventListener("click", async (event) => {
    if (!event.target.matches(".copy")) return;
    const text = $("pre", event.target.parentElement).textContent;
    try { await navigator.clipboard.writeText(text); } catch {
      const range = document.createRange();
      range.selectNodeContents($("pre", event.target.parentElement));
      getSelection().removeAllRanges(); getSelection().addRange(range); document.execCommand("copy");
    }
    event.target.textContent = "Copied";
  });
  const openTarget = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target && target.matches("details")) target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();
  addEventListener("beforeprint", () => {
    $$("details.run, #milestones details").forEach((part) => { part.open = true; });
    $$(".chart:not([data-drawn])").forEach(drawSafely);
  });
  document.body.dataset.ready = "yes";
})();
