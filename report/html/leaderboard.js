// The leaderboard: sorts by a column, filters rows, opens a trial, and saves the table as CSV or JSON. Works by keyboard.
(async () => {
  const table = document.getElementById("ranking");
  if (!table || !window.DecompressionStream) return; // a plain table
  const trials = JSON.parse(await window.unpackReport("trials"));
  const body = table.tBodies[0];
  const lines = [...body.rows];
  const controls = document.querySelector(".controls");
  const field = document.getElementById("filter");
  const outcome = document.getElementById("outcome");
  const status = controls.querySelector("output");
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const rowOf = (line) => trials.rows[Number(line.dataset.row)];

  // --- filtering ------------------------------------------------------------------------------------------------------

  const choicesOf = (row) => (row.number === null ? [] : trials.chosen[row.number])
    .map((value, place) => [trials.choices[place], value]).filter(([, value]) => value !== null && value !== undefined);
  const searchable = lines.map((line) => {
    const row = rowOf(line);
    const choices = choicesOf(row).map(([name, value]) => `${name} ${value}`).join("; ");
    return `${row.number === null ? "" : "trial "}${row.name}; ${row.outcome.replaceAll("_", " ")}; ${choices}`.toLowerCase();
  });
  let isWhole = false;
  const shown = () => lines.filter((line) => !line.hidden);
  const filter = () => {
    const words = field.value.trim().toLowerCase();
    const isFiltered = Boolean(words || outcome.value);
    let more = 0;
    for (const [place, line] of lines.entries()) {
      const isMatching = searchable[place].includes(words) && (!outcome.value || rowOf(line).outcome === outcome.value);
      const isFolded = !isWhole && !isFiltered && !isSorted && line.classList.contains("more");
      line.hidden = !isMatching || isFolded;
      more += isMatching && isFolded;
      if (line.hidden) close(line);
    }
    whole.hidden = more === 0;
    whole.textContent = `Show ${more.toLocaleString("en")} more`;
    status.textContent = isFiltered ? `${shown().length.toLocaleString("en")} of ${lines.length.toLocaleString("en")} rows` : "";
  };

  // --- sorting --------------------------------------------------------------------------------------------------------

  let isSorted = false;
  const heads = [...table.tHead.rows[0].cells];
  const rising = new Set(["rank", "name", "outcome", "params", "macs", "flash_bytes", "arena_bytes", "seconds"]);
  const sortBy = (head) => {
    const key = head.dataset.key;
    const before = head.getAttribute("aria-sort");
    const first = rising.has(key) ? "ascending" : "descending";
    const now = before === null ? first : before === "ascending" ? "descending" : "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", now);
    const sign = now === "ascending" ? 1 : -1;
    const value = (line) => (key === "name" ? rowOf(line).number : rowOf(line)[key]);
    const compare = (one, other) => {
      const [left, right] = [value(one), value(other)];
      if (left === null || right === null) return (left === null) - (right === null); // unknown last
      return sign * (typeof left === "string" ? left.localeCompare(right) : left - right);
    };
    isSorted = !(key === "rank" && now === "ascending");
    const isReference = (line) => rowOf(line).number === null;
    const sorted = [...lines].sort((one, other) => isReference(other) - isReference(one) || compare(one, other)
      || one.dataset.row - other.dataset.row);
    for (const line of sorted) {
      const opened = line.nextElementSibling?.classList.contains("opened") ? line.nextElementSibling : null;
      body.append(line, ...(opened ? [opened] : []));
    }
    filter();
  };
  for (const head of heads) {
    const button = element("button", { type: "button", title: "sort by this column" }, head.textContent);
    button.addEventListener("click", () => sortBy(head));
    head.replaceChildren(button);
  }
  heads[0].setAttribute("aria-sort", "ascending");

  // --- a row that opens -----------------------------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes, text = "") => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };
  const curve = (row) => {
    const own = trials.curves[row.number];
    const [width, height, left, bottom] = [420, 180, 44, 24];
    const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", role: "img",
      "aria-label": `${trials.measure} by epoch: trial ${row.number}, the base dashed` });
    const settled = (values) => values.slice(Math.floor(values.length / 3));
    const values = [...settled(own), ...settled(trials.base)];
    const [low, high] = [Math.min(...values) - 20, Math.max(...values, ...own) + 20];
    const epochs = Math.max(own.length, trials.base.length, 2);
    const x = (place) => left + (width - left - 8) * place / (epochs - 1);
    const y = (value) => (height - bottom) - (height - bottom - 8) * (Math.max(value, low) - low) / (high - low);
    const line = (accuracies, kind) => shape("polyline", { class: kind,
      points: accuracies.map((value, place) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`).join(" ") });
    for (const value of [low, (low + high) / 2, high]) {
      picture.append(shape("path", { class: "grid", d: `M${left} ${y(value)}H${width - 8}` }),
        shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, `${(value / 100).toFixed(1)}%`));
    }
    picture.append(shape("text", { x: left, y: height - 6 }, "epoch 1"),
      shape("text", { x: width - 8, y: height - 6, "text-anchor": "end" }, `${epochs}`));
    if (trials.base.length) picture.append(line(trials.base, "base"));
    picture.append(line(own, "own"));
    return picture;
  };
  const percent = (value) => `${(100 * value).toFixed(trials.images && trials.images <= 1000 ? 1 : 2)}%`;
  const short = (value) => (typeof value !== "number" ? `${value}` : Number.isInteger(value) ? value.toLocaleString("en")
    : `${Number(value.toPrecision(Math.abs(value) < 0.1 ? 2 : 3))}`);
  const facts = (row) => {
    const list = element("dl", { className: "facts" });
    const add = (name, value) => value && list.append(element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    const whole = (value) => (value === null ? "" : value.toLocaleString("en"));
    if (row.low !== null) {
      add("95 % interval", `${percent(row.low)} to ${percent(row.high)}, one training on ${whole(trials.images)} images`);
    }
    if (row.rank !== null && trials.images) {
      add("Against the winner", row.rank === 1 ? "it is the winner" : row.tie
        ? "one training cannot tell them apart" : "behind by more than chance makes in one training");
    }
    add("Finals", trials.finals[row.number] ?? "");
    add("Parameters", whole(row.params));
    add("Multiply-adds", whole(row.macs));
    add("Flash, int8", row.flash_bytes === null ? "" : `${whole(row.flash_bytes)} bytes`);
    add("Arena, int8", row.arena_bytes === null ? "" : `${whole(row.arena_bytes)} bytes`);
    add("Epochs", row.epochs === null ? "" : `${row.epochs}, best in ${row.best_epoch}`);
    for (const [name, value] of choicesOf(row)) add(name, short(value));
    return list;
  };
  const open = (line) => {
    const row = rowOf(line);
    const parts = [];
    const drawing = trials.drawings[row.number];
    if (drawing) {
      const box = element("div", { className: "drawing" });
      box.innerHTML = drawing; // made by this page's own writer
      parts.push(box);
    }
    const side = element("div", { className: "side" });
    if (trials.curves[row.number]) side.append(curve(row));
    side.append(facts(row), element("p", {}, element("code", {}, `python -m search show ${trials.called} ${row.number}`)));
    const cell = element("td", { colSpan: heads.length }, element("div", { className: "trial" }, ...parts, side));
    line.after(element("tr", { className: "opened", id: `trial-${row.number}` }, cell));
    line.cells[1].firstElementChild.setAttribute("aria-expanded", "true");
  };
  const close = (line) => {
    const opened = line.nextElementSibling;
    if (!opened?.classList.contains("opened")) return;
    opened.remove();
    line.cells[1].firstElementChild.setAttribute("aria-expanded", "false");
  };
  for (const line of lines) {
    const row = rowOf(line);
    if (row.number === null) continue;
    const cell = line.cells[1];
    const button = element("button", { type: "button", className: "open" }, cell.textContent);
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `trial ${row.number}, details`);
    button.addEventListener("click", () => (button.getAttribute("aria-expanded") === "true" ? close : open)(line));
    cell.replaceChildren(button);
  }

  // --- files ----------------------------------------------------------------------------------------------------------

  const keys = Object.keys(trials.rows[0] ?? {});
  const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const text = {
    csv: () => [[...keys, ...trials.choices], ...sortedRows().map((row) => [...keys.map((key) => row[key]),
      ...(row.number === null ? trials.choices.map(() => "") : trials.chosen[row.number])])]
      .map((cells) => cells.map((cell) => quoted(`${cell ?? ""}`)).join(",")).join("\n"),
    json: () => JSON.stringify(sortedRows().map((row) => ({ ...row, choices: Object.fromEntries(choicesOf(row)) })), null, 1),
  };
  const sortedRows = () => [...body.rows].filter((line) => line.dataset.row !== undefined)
    .filter((line) => !line.hidden || line.classList.contains("more") && !field.value && !outcome.value).map(rowOf);
  for (const button of controls.querySelectorAll("[data-file]")) {
    const kind = button.dataset.file;
    button.title = `save the table as ${kind.toUpperCase()}`;
    button.addEventListener("click", () => {
      const link = element("a", { download: `${trials.study}.${kind}`,
        href: URL.createObjectURL(new Blob([text[kind]() + "\n"], { type: kind === "csv" ? "text/csv" : "application/json" })) });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
  window.leaderboardText = (kind) => text[kind]();

  const whole = element("button", { type: "button", className: "whole" });
  whole.addEventListener("click", () => { isWhole = true; filter(); });
  table.parentElement.after(whole);
  field.addEventListener("input", filter);
  outcome.addEventListener("change", filter);
  let unprinted = false;
  addEventListener("beforeprint", () => { unprinted = isWhole; isWhole ||= lines.length <= 300; filter(); });
  addEventListener("afterprint", () => { isWhole = unprinted; filter(); });
  controls.hidden = false;
  filter();
  table.dataset.ready = "true";
})();
