// What all parts of the page use: elements, themes, links that land where they point.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const node = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; // never innerHTML: texts come from models
  return made;
};
const runs = data.runs;
const runOf = new Map(runs.map((run) => [run.name, run]));
const number = (value) => {
  if (value === undefined || value === null || !Number.isFinite(value)) return "—";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  const text = value.toPrecision(4);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : Number(text).toLocaleString("en");
};
const whole = (value) => Math.round(value).toLocaleString("en");
const swatch = (run) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [key, value] of [["width", 26], ["height", 10], ["aria-hidden", "true"]]) svg.setAttribute(key, value);
  const how = { x1: 0, y1: 5, x2: 26, y2: 5, stroke: run.colour, "stroke-width": 2.6, "stroke-dasharray": run.dash.join(" ") };
  for (const [key, value] of Object.entries(how)) line.setAttribute(key, value);
  svg.append(line);
  return svg;
};

// --- theme
const system = window.matchMedia("(prefers-color-scheme: dark)");
const chosenTheme = () => document.documentElement.dataset.theme;
const dark = () => (chosenTheme() ? chosenTheme() === "dark" : system.matches);
const onTheme = [];
const themed = () => onTheme.forEach((act) => act());
$("#theme").addEventListener("click", () => {
  const next = { undefined: "light", light: "dark", dark: undefined }[chosenTheme()];
  if (next) document.documentElement.dataset.theme = next; else delete document.documentElement.dataset.theme;
  $("#theme").textContent = `Theme: ${next ?? "auto"}`;
  themed();
});
system.addEventListener("change", themed);

// --- links: open the folds around a target, then land on it
const onHash = []; // (hash) => true where it was handled
const reveal = (target) => {
  for (let part = target; part; part = part.parentElement) if (part.matches("details")) Object.assign(part, { open: true, hidden: false });
  target.scrollIntoView({ block: "start", behavior: "instant" });
};
const goTo = (hash) => {
  if (hash.length < 2 || onHash.some((handle) => handle(hash))) return;
  const target = document.getElementById(hash.slice(1));
  if (target) reveal(target);
};
addEventListener("hashchange", () => goTo(location.hash));
document.addEventListener("click", (event) => { // the same link twice: no hashchange, and a fold may have been closed
  const link = event.target.closest?.('a[href^="#"]');
  if (link && link.getAttribute("href") === location.hash) goTo(location.hash);
});

// --- find a run: one wish, in every list of runs
const finders = $$(".find-run");
const onFind = [];
const wanted = () => (finders[0]?.value ?? "").trim().toLowerCase();
const found = (name) => name.toLowerCase().includes(wanted());
const filterLists = () => {
  for (const row of $$("[data-run]")) if (row.matches(".verdict-row, details, .toggle")) row.hidden = !found(row.dataset.run);
  for (const fold of $$("details.fold")) fold.hidden = !$$("[data-run]", fold).some((row) => !row.hidden);
  onFind.forEach((act) => act());
};
for (const box of finders) {
  box.addEventListener("input", () => {
    for (const other of finders) if (other !== box) other.value = box.value;
    filterLists();
  });
}

// --- configurations
document.addEventListener("click", async (event) => {
  if (!event.target.matches?.(".copy")) return;
  const text = $("pre", event.target.parentElement).textContent;
  try { await navigator.clipboard.writeText(text); } catch {
    const range = document.createRange();
    range.selectNodeContents($("pre", event.target.parentElement));
    getSelection().removeAllRanges(); getSelection().addRange(range); document.execCommand("copy");
  }
  event.target.textContent = "Copied";
});
addEventListener("beforeprint", () => $$("details.run, #milestones details").forEach((part) => { part.open = true; }));
