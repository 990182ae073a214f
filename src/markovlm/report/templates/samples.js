// Samples: filtered, ordered, one link each, by keyboard (j and k).
const contains = (sample) => {
  if (sample.contains_answer !== undefined) return sample.contains_answer;
  const answer = (sample.answer ?? "").trim();
  if (!answer || answer.length > 40) return null;
  for (let at = sample.cot.indexOf(answer); at >= 0; at = sample.cot.indexOf(answer, at + 1)) {
    const around = [sample.cot[at - 1] ?? " ", sample.cot[at + answer.length] ?? " "];
    if (!around.some((char) => /[\p{L}\p{N}]/u.test(char))) return true;
  }
  return false;
};
const outcome = (sample) => (sample.correct === true ? "right" : sample.correct === false ? "wrong" : "unknown");
const rewardOf = (sample) => sample.normalized_reward ?? sample.reward;
const marked = (className, text, answer) => {
  const made = node("div", `text ${className}`);
  made.tabIndex = 0;
  const sought = (answer ?? "").trim();
  const parts = sought && sought.length < 40 ? text.split(sought) : [text];
  if (parts.length > 400) { made.textContent = text; return made; }
  parts.forEach((part, i) => {
    if (i) made.append(node("mark", "", sought));
    made.append(part);
  });
  return made;
};
const form = $("#sample-filter");
if (form) {
  form.addEventListener("submit", (event) => event.preventDefault());
  const PAGE = 12;
  let limit = PAGE, current = -1, linked = null;
  const lower = data.samples.map((s) => `${s.question}\n${s.cot}\n${s.answer}\n${s.answered ?? ""}`.toLowerCase());
  const twins = new Map(); // samples of one line of one file are told apart by a number
  const links = data.samples.map((s) => {
    const place = `#sample/${encodeURIComponent(s.run)}/${encodeURIComponent(s.source)}/${s.line}`;
    twins.set(place, (twins.get(place) ?? 0) + 1);
    return twins.get(place) > 1 ? `${place}.${twins.get(place)}` : place;
  });
  const linkOf = new Map(data.samples.map((s, i) => [s, links[i]]));
  const fields = () => Object.fromEntries(new FormData(form));
  // No question twice before all came once, and steps far apart next to each other: multiples of the golden ratio fill 0 to 1 evenly.
  const spread = (list) => {
    const times = new Map();
    return list.sort((a, b) => a.step - b.step)
      .map((sample, i) => ({ sample, at: ((i + 1) * 0.6180339887498949) % 1 }))
      .sort((a, b) => a.at - b.at)
      .map(({ sample }) => {
        const round = times.get(sample.question) ?? 0;
        times.set(sample.question, round + 1);
        return { sample, round };
      })
      .sort((a, b) => a.round - b.round)
      .map(({ sample }) => sample);
  };
  const chosen = () => {
    const f = fields();
    const text = f.text.toLowerCase();
    const judged = { right: (s) => s.correct === true, wrong: (s) => s.correct === false, unknown: (s) => s.correct === undefined,
      contains: (s) => contains(s) === true, without: (s) => contains(s) === false }[f.outcome] ?? (() => true);
    const list = data.samples.filter((s, i) =>
      (!f.run || s.run === f.run) && judged(s) && (f.from === "" || s.step >= +f.from) && (f.to === "" || s.step <= +f.to) &&
      (!text || lower[i].includes(text)));
    const by = {
      step: (a, b) => a.step - b.step, worst: (a, b) => rewardOf(a) - rewardOf(b), best: (a, b) => rewardOf(b) - rewardOf(a),
      near: (a, b) => Math.abs(a.step - f.near) - Math.abs(b.step - f.near),
    }[f.order];
    const ordered = f.order === "spread" ? spread(list)
      : (f.order === "step" || f.order === "near" ? list : list.filter((s) => rewardOf(s) !== undefined)).sort(by);
    return linked ? [linked, ...ordered.filter((s) => s !== linked)] : ordered;
  };
  const card = (sample) => {
    const made = node("article", `sample ${outcome(sample)}${sample === linked ? " linked" : ""}`);
    made.tabIndex = -1;
    const head = node("header");
    const run = runOf.get(sample.run);
    head.append(swatch(run), node("b", "name", sample.run), node("span", "", `step ${sample.step.toLocaleString("en")}`));
    if (run.onset !== null && (run.verdict === "collapsed" || run.verdict === "warn")) {
      head.append(node("span", "", sample.step < run.onset ? "before the onset" : "after the onset"));
    }
    if (sample.correct !== undefined) head.append(node("span", `${outcome(sample)}-text`, sample.correct ? "✓ right" : "✕ wrong"));
    else if (contains(sample) !== null) head.append(node("span", "", contains(sample) ? "CoT contains the answer" : "answer not in the CoT"));
    for (const [key, name] of [["reward", "reward"], ["normalized_reward", "normalised"], ["advantage", "advantage"], ["answer_logprob", "answer log-prob"], ["cot_tokens", "CoT tokens"]]) {
      if (sample[key] !== undefined) head.append(node("span", "", `${name} ${number(sample[key])}`));
    }
    const link = node("a", "link", `${sample.source}, line ${sample.line.toLocaleString("en")}`);
    link.href = linkOf.get(sample);
    link.title = "Link to this sample";
    head.append(link);
    made.append(head, node("h4", "", "Question"), marked("question", sample.question));
    const pair = node("div", sample.baseline_cot === undefined ? "pair single" : "pair");
    const side = (title, text) => {
      const column = node("div");
      column.append(node("h4", "", title), marked("", text, sample.answer));
      pair.append(column);
    };
    side("CoT of the trained model", sample.cot);
    if (sample.baseline_cot !== undefined) side("CoT of the frozen model", sample.baseline_cot);
    made.append(pair);
    const answers = node("div", "pair");
    const answer = (title, text) => {
      const column = node("div");
      column.append(node("h4", "", title), text);
      answers.append(column);
    };
    answer("Gold answer", marked("", sample.answer));
    if (sample.answered !== undefined) answer("Answered", marked("", sample.answered, sample.answer));
    else answer("Answered", node("p", "note", sample.unanswered));
    made.append(answers);
    return made;
  };
  const show = () => {
    const list = chosen();
    $("#sample-list").replaceChildren(...list.slice(0, limit).map(card));
    const right = list.filter((s) => s.correct === true).length, judged = list.filter((s) => s.correct !== undefined).length;
    const holding = list.filter((s) => contains(s) === true).length;
    const told = judged ? `, right in ${right.toLocaleString("en")} of the ${judged.toLocaleString("en")} that were judged` : list.length ? `, the CoT of ${holding.toLocaleString("en")} contains the answer` : "";
    $("#sample-count").textContent = `${list.length.toLocaleString("en")} samples${list.length > limit ? `, ${limit} shown` : ""}${told}`;
    $("#more-samples").hidden = list.length <= limit;
    current = -1;
  };
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
    $("#near-step").hidden = form.elements.order.value !== "near";
    limit = PAGE;
    show();
  };
  form.addEventListener("input", () => { linked = null; set({}); });
  $("#more-samples").addEventListener("click", () => {
    const at = limit;
    limit += PAGE;
    show();
    $$("#sample-list .sample")[at]?.focus({ preventScroll: true });
    current = at;
  });
  const all = { outcome: "", from: "", to: "", text: "" };
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.(".to-samples");
    if (!link) return;
    linked = null;
    const step = link.dataset.near;
    set({ ...all, run: link.dataset.of, order: step === undefined ? "spread" : "near", near: step ?? "" });
  });
  onHash.push((hash) => {
    if (!hash.startsWith("#sample/")) return false;
    linked = data.samples.find((s) => linkOf.get(s) === hash) ?? null;
    if (!linked) { $("#sample-count").textContent = "The linked sample is not in this report."; $("#samples").scrollIntoView(); return true; }
    set({ ...all, run: linked.run, order: "near", near: linked.step });
    const first = $("#sample-list .sample");
    first.scrollIntoView({ block: "start", behavior: "instant" });
    first.focus({ preventScroll: true });
    current = 0;
    return true;
  });
  addEventListener("keydown", (event) => {
    const move = { j: 1, k: -1 }[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, select, textarea")) return;
    const cards = $$("#sample-list .sample");
    const box = $("#samples").getBoundingClientRect();
    if (!cards.length || (current < 0 && (box.top > innerHeight || box.bottom < 0))) return; // only where samples are in sight
    if (current + move >= cards.length && !$("#more-samples").hidden) { $("#more-samples").click(); $$("#sample-list .sample")[current]?.scrollIntoView({ block: "start" }); return; }
    current = Math.max(0, Math.min(cards.length - 1, current + move));
    cards[current].focus({ preventScroll: true });
    cards[current].scrollIntoView({ block: "start", behavior: "instant" });
  });
  onFind.push(() => {
    for (const option of $$("option", form.elements.run)) option.hidden = option.value !== "" && !found(option.value);
  });
  set({});
}
