"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--figure-ink").trim();
  const paper = () => getComputedStyle(document.documentElement).getPropertyValue("--card").trim();
  const read = (id) => {
    const found = document.getElementById(id);
    return found ? JSON.parse(found.textContent) : null;
  };

  // --- figures ---

  const figures = [...document.querySelectorAll(".figure")];
  const options = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  };
  const colours = () => ({ "font.color": ink(), "hoverlabel.bgcolor": paper(), "hoverlabel.font.color": ink() });
  const draw = (place) => {
    const figure = read(`${place.id}-data`);
    // texts among many lines
    for (const note of figure.layout.annotations || []) note.bgcolor = `${paper()}c0`;
    return Plotly.newPlot(place, figure.data, figure.layout, options).then(() => Plotly.relayout(place, colours()));
  };
  // one after the other, so that the page can be used meanwhile
  const drawn = figures.reduce(
    (before, place) => before.then(() => new Promise((next) => setTimeout(next, 0))).then(() => draw(place)),
    Promise.resolve(),
  );
  drawn.then(() => document.body.setAttribute("data-drawn", String(figures.length)));
  dark.addEventListener("change", () => figures.forEach(draw));

  // --- texts to copy ---

  for (const recipe of document.querySelectorAll(".recipe")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const text = recipe.querySelector("pre");
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        window.getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    recipe.append(button);
  }

  // --- the table ---

  const table = read("table-data");
  if (!table) return;
  const { columns, cells } = table;
  const total = cells[0].length;
  const visible = columns.map((column, at) => at).filter((at) => !columns[at].hidden);
  const statusAt = columns.findIndex((column) => column.kind === "status");
  const element = document.getElementById("evaluations");
  const head = element.tHead.rows[0];
  const body = element.tBodies[0];
  const more = document.getElementById("more");
  const filter = document.getElementById("filter");
  const status = document.getElementById("status");
  const step = 100;
  let shown = [];
  let limit = step;
  let sort = { at: -1, up: true };
  let texts = null;

  const show = (value, column) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(6)));
    return String(value);
  };
  const compare = (a, b) => {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a < b ? -1 : 1;
  };

  const update = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !texts) {
      texts = Array.from({ length: total }, (_, row) =>
        columns.map((column, at) => `${column.name}=${show(cells[at][row], column)}`).join(" ").toLowerCase());
    }
    shown = [];
    for (let row = 0; row < total; row += 1) {
      if (status.value && cells[statusAt][row] !== status.value) continue;
      if (words.every((word) => texts[row].includes(word))) shown.push(row);
    }
    if (sort.at >= 0) {
      const column = cells[sort.at];
      // whatever the direction, rows without a value come last
      shown.sort((a, b) => {
        if (column[a] === null || column[b] === null) return compare(column[a], column[b]) || a - b;
        return (sort.up ? 1 : -1) * compare(column[a], column[b]) || a - b;
      });
    }
    limit = step;
    render();
  };

  const detail = (row) => {
    const line = document.createElement("tr");
    line.className = "detail";
    const cell = line.insertCell();
    cell.colSpan = visible.length;
    const lines = [];
    columns.forEach((column, at) => {
      const value = cells[at][row];
      if (value === null || value === "") return;
      if (column.parameter) lines.push(`${column.name} = ${show(value, column)}`);
      if (column.kind === "text") lines.push(String(value));
      if (column.kind === "message") lines.push("", String(value));
    });
    if (table.metrics[row]) lines.push("", table.metrics[row]);
    if (table.run) lines.push("", `ciq show ${table.run} ${cells[0][row]}`);
    const text = document.createElement("pre");
    text.className = "wrap";
    text.textContent = lines.join("\n").trim();
    cell.append(text);
    return line;
  };

  const toggle = (line, row) => {
    const next = line.nextElementSibling;
    if (next && next.className === "detail") {
      next.remove();
      line.setAttribute("aria-expanded", "false");
    } else {
      line.after(detail(row));
      line.setAttribute("aria-expanded", "true");
    }
  };

  const render = () => {
    const rows = shown.slice(0, limit).map((row) => {
      const line = document.createElement("tr");
      line.className = "row";
      line.tabIndex = 0;
      line.setAttribute("aria-expanded", "false");
      for (const at of visible) {
        const column = columns[at];
        const cell = line.insertCell();
        cell.textContent = show(cells[at][row], column).slice(0, 200);
        if (column.number) cell.className = "number";
        if (column.kind === "status") cell.className = cells[at][row] === "ok" ? "status-ok" : "status-failed";
      }
      line.addEventListener("click", () => toggle(line, row));
      line.addEventListener("keydown", (event) => {
        if (event.key === "Enter") toggle(line, row);
      });
      return line;
    });
    body.replaceChildren(...rows);
    more.hidden = shown.length <= limit;
    more.textContent = `Show ${Math.min(step, shown.length - limit)} more`;
    const of = shown.length === total ? `${total} evaluations` : `${shown.length} of ${total} evaluations`;
    document.getElementById("count").textContent = of;
    [...head.cells].forEach((cell, place) => {
      const sorted = visible[place] === sort.at;
      cell.setAttribute("aria-sort", sorted ? (sort.up ? "ascending" : "descending") : "none");
      cell.firstChild.textContent = columns[visible[place]].name + (sorted ? (sort.up ? " ▲" : " ▼") : "");
    });
  };

  for (const at of visible) {
    const cell = document.createElement("th");
    if (columns[at].number) cell.className = "number";
    const button = document.createElement("button");
    button.type = "button";
    button.addEventListener("click", () => {
      // a score begins with its best
      const first = columns[at].best !== "max";
      sort = { at, up: sort.at === at ? !sort.up : first };
      update();
    });
    cell.append(button);
    head.append(cell);
  }
  for (const value of [...new Set(cells[statusAt])].sort()) {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = value;
    status.append(option);
  }
  filter.addEventListener("input", update);
  status.addEventListener("change", update);
  more.addEventListener("click", () => { limit += step; render(); });
  const score = columns.findIndex((column) => column.best);
  sort = { at: score, up: columns[score].best !== "max" };
  update();
})();
