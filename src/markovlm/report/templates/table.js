// Sorting by a click on a heading, of the table of runs and of every table.sortable.
const cellValue = (row, column) => {
  const cell = row.cells[column];
  const value = cell.dataset.value ?? cell.textContent;
  return value === "" || value === "—" ? null : Number.isNaN(+value) ? value : +value;
};
const compareBy = (state) => (a, b) => {
  if (state.column === null) return a.order - b.order;
  const [x, y] = [cellValue(a.row, state.column), cellValue(b.row, state.column)];
  if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order; // what is missing comes last
  const way = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
  return (state.down ? -way : way) || a.order - b.order;
};
const sortByHeads = (heads, state, arrange) => {
  for (const head of heads) {
    $("button", head).addEventListener("click", () => {
      const column = +head.dataset.column;
      const numeric = head.classList.contains("number");
      state.down = state.column === column ? !state.down : numeric; // numbers: largest first
      state.column = column;
      for (const other of heads) other.setAttribute("aria-sort", other !== head ? "none" : state.down ? "descending" : "ascending");
      arrange();
    });
  }
};
for (const plain of $$("table.sortable")) {
  const body = $("tbody", plain);
  const rows = $$("tr", body).map((row, order) => ({ row, order }));
  const state = { column: null, down: false };
  sortByHeads($$("th[data-column]", plain), state, () => body.replaceChildren(...rows.toSorted(compareBy(state)).map(({ row }) => row)));
}
// The table of runs: sorted by any column, grouped by task, verdict or setting; what cannot be judged folded at its end.
const table = $("#runs-table");
if (table) {
  const body = $("tbody", table);
  const rows = $$("tr", body).map((row, order) => ({ row, order, run: runs[+row.dataset.index] }));
  const heads = $$("th[data-column]", table);
  const groupBy = $("#group-runs");
  const width = $$("thead tr:last-child th", table).length + $$("thead tr:first-child th[rowspan]", table).length;
  const state = { column: null, down: false, unjudged: false };
  const heading = (text, count) => {
    const row = node("tr", "group");
    const cell = node("th", "", `${text} `);
    cell.colSpan = width;
    cell.scope = "rowgroup";
    cell.append(node("small", "", `${count} ${count === 1 ? "run" : "runs"}`));
    row.append(cell);
    return row;
  };
  const fold = (count) => {
    const row = node("tr", "group");
    const cell = node("td");
    cell.colSpan = width;
    const button = node("button", "", `${state.unjudged ? "Hide" : "Show"} ${count} ${count === 1 ? "run" : "runs"} that cannot be judged`);
    button.type = "button";
    button.setAttribute("aria-expanded", state.unjudged);
    button.addEventListener("click", () => { state.unjudged = !state.unjudged; arrange(); $("tr.group button", body)?.focus(); });
    cell.append(button);
    row.append(cell);
    return row;
  };
  const arrange = () => {
    const here = rows.filter(({ run }) => found(run.name)).sort(compareBy(state));
    const foldable = rows.length > 12; // FEW_RUNS of overview.py
    const judged = here.filter(({ run }) => !foldable || run.verdict !== "unknown");
    const rest = here.filter(({ run }) => foldable && run.verdict === "unknown");
    const by = groupBy && groupBy.value !== "" ? +groupBy.value : null;
    const list = [];
    if (by === null) list.push(...judged.map(({ row }) => row));
    else {
      const groups = new Map();
      for (const item of judged) {
        const key = item.run.by[by] ?? "not recorded";
        groups.set(key, [...(groups.get(key) ?? []), item.row]);
      }
      for (const [key, members] of [...groups].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }))) {
        list.push(heading(key, members.length), ...members);
      }
    }
    if (rest.length) list.push(fold(rest.length), ...(state.unjudged ? rest.map(({ row }) => row) : []));
    body.replaceChildren(...list);
    const count = $("#runs-count");
    if (count) count.textContent = here.length === rows.length ? `${rows.length} runs` : `${here.length} of ${rows.length} runs`;
  };
  sortByHeads(heads, state, arrange);
  groupBy?.addEventListener("change", arrange);
  onFind.push(arrange);
  addEventListener("beforeprint", () => { state.unjudged = true; arrange(); });
  arrange();
}
