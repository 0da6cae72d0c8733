// Draws the figures of a page in the colours of its theme, sorts long tables, shows or hides code.
const root = document.documentElement;
const PRINTED_WIDTH = 660; // pixels: fits A4 and Letter
const PRINTED_HEIGHT = 720; // a page, less heading and caption
const PRINTED_HALF = 280; // of a figure that asks for no height: two fit a page, with their words
const PROSE = 40; // characters from which on a cell holds sentences
const WHOLE = 16; // characters of a cell that is not broken into lines
const NARROW = 520; // pixels
const TITLE = 26; // characters of an axis title that a narrow figure has room for
const LABEL = 18; // and of what stands at a line of it
const TWO_LINES = 36; // pixels

const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const axesOf = (layout) =>
  Object.keys({ xaxis: 0, yaxis: 0, ...layout }).filter((k) => /^[xy]axis\d*$/.test(k));

function themed(layout) {
  const axes = axesOf(layout);
  const lines = { gridcolor: color("--line"), zerolinecolor: color("--line") };
  const themedAxes = axes.map((name) => [name, { ...layout[name], ...lines }]);
  return {
    ...layout,
    ...Object.fromEntries(themedAxes),
    autosize: true,
    font: { ...layout.font, color: color("--quiet") },
    modebar: { bgcolor: "rgba(0, 0, 0, 0)", color: color("--quiet"), activecolor: color("--accent") },
    hoverlabel: { ...layout.hoverlabel, bgcolor: color("--raised"), font: { color: color("--ink") } },
  };
}

// Intervals of bars, which plotly draws dark grey on any ground.
function themedBars(data) {
  const inked = (trace, bars) => (trace[bars] ? { [bars]: { ...trace[bars], color: color("--ink") } } : {});
  return data.map((trace) =>
    trace.type === "bar" ? { ...trace, ...inked(trace, "error_x"), ...inked(trace, "error_y") } : trace,
  );
}

// What a phone has room for: titles in short lines, and all of it in smaller letters.
function narrowed(layout) {
  const axes = axesOf(layout).map((name) => {
    const { text = "", ...title } = layout[name]?.title ?? {};
    const lines = text.split("<br>").map((line) => inLines(line, TITLE));
    const font = { ...title.font, size: 13 };
    return [name, { ...layout[name], title: { ...title, text: lines.join("<br>"), font } }];
  });
  const notes = layout.annotations?.map((note) => ({ ...note, font: { ...note.font, size: 12 } }));
  return {
    ...layout,
    ...Object.fromEntries(axes),
    ...(notes && { annotations: notes }),
    margin: { l: 45, r: 10, ...layout.margin },
  };
}

// Long names at the lines of a narrow figure, or else they take its room, in short lines.
function narrowedNames(data, layout) {
  const names = new Set(data.flatMap(({ y }) => (Array.isArray(y) ? y : [])));
  if (!layout.height || layout.height / names.size < TWO_LINES) return data;
  const inShort = (name) => (typeof name === "string" ? inLines(name, LABEL) : name);
  return data.map((trace) => (Array.isArray(trace.y) ? { ...trace, y: trace.y.map(inShort) } : trace));
}

// A text in lines of about the same length, at most so many characters where spaces allow it.
function inLines(text, most) {
  const even = Math.ceil(text.length / Math.ceil(text.length / most)) + 3;
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1) ?? ""} ${word}`.trim();
    if (lines.length && longer.length <= even) lines.splice(-1, 1, longer);
    else lines.push(word);
  }
  return lines.join("<br>");
}

const fileName = document.title.split(" · ")[0].replace(/[^\w.-]+/g, "-");

function download(format) {
  return {
    name: `Download as ${format.toUpperCase()}`,
    icon: format === "svg" ? Plotly.Icons.disk : Plotly.Icons.camera,
    click: (drawing) => Plotly.downloadImage(drawing, { format, filename: fileName }),
  };
}

function draw(figure, printed = false) {
  const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
  const isNarrow = figure.clientWidth < NARROW && !printed;
  const fitting = isNarrow ? narrowed(layout) : layout;
  const named = isNarrow ? narrowedNames(data, layout) : data;
  const config = {
    responsive: !printed, // or else the printer's page would resize it again
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtons: [[...["svg", "png"].map(download), "resetScale2d"]],
  };
  const height = Math.min(layout.height ?? PRINTED_HALF, PRINTED_HEIGHT);
  const paper = { autosize: false, width: PRINTED_WIDTH, height };
  const drawn = { ...themed(fitting), ...(printed ? paper : {}) };
  return Plotly.react(figure.querySelector("div"), themedBars(named), drawn, config);
}

// A tile of the error atlas names the place on the page that holds its worst predictions.
function leadOn(figure) {
  figure.querySelector("div").on("plotly_click", ({ points }) => {
    const place = document.getElementById(points[0]?.customdata);
    if (place?.tagName !== "DETAILS") return;
    place.open = true;
    place.scrollIntoView({ block: "center" });
    place.querySelector("summary").focus({ preventScroll: true });
  });
}

const figures = [...document.querySelectorAll(".plotly-figure")];
const drawAll = (printed) => figures.forEach((figure) => draw(figure, printed));

// One after the other, so that a long page answers while it is being drawn.
function drawFrom(number) {
  if (number < figures.length) {
    draw(figures[number]);
    leadOn(figures[number]);
    setTimeout(drawFrom, 0, number + 1);
  }
}

// Right-aligns columns of numbers, with their headings, gives those of sentences room, breaks
// long headings, and keeps the names of rows in sight.
function alignColumns(table) {
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  const heads = table.tHead ? [...table.tHead.rows] : [];
  const isNumber = (text) => /^[-−+]?\d[\d.,]*(e[-+]?\d+)?( ?%)?$/.test(text);
  const isGap = (text) => /^(|–|nan|<na>|none)$/i.test(text);
  for (let column = 0; column < (rows[0]?.cells.length ?? 0); column++) {
    const cells = rows.map((row) => row.cells[column]).filter((cell) => cell?.tagName === "TD");
    const texts = cells.filter((cell) => cell.colSpan === 1).map((cell) => cell.textContent.trim());
    if (texts.some(isNumber) && texts.every((text) => isNumber(text) || isGap(text))) {
      [...cells, ...heads.map((row) => row.cells[column])].forEach((c) => c?.classList.add("number"));
    } else if (texts.some((text) => text.length > PROSE)) {
      cells.forEach((cell) => cell.classList.add("prose"));
    } else if (texts.every((text) => text.length <= WHOLE)) {
      cells.forEach((cell) => cell.classList.add("whole"));
    }
  }
  for (const head of heads.flatMap((row) => [...row.cells])) {
    if (head.children.length) continue;
    const parts = head.textContent.split(/(?<=_)/).flatMap((part) => [part, document.createElement("wbr")]);
    head.replaceChildren(...parts.slice(0, -1));
  }
  const names = rows.map((row) => row.cells[0]?.textContent.trim() ?? "");
  const isNamed = names.every((name) => name.length <= PROSE) && !table.querySelector("[rowspan]");
  if (!isNamed) return;
  table.classList.add("named");
  const place = table.closest(".scroll, .rich");
  place?.addEventListener("scroll", () => place.classList.toggle("scrolled", place.scrollLeft > 0));
}

// Headings of a long table sort it: by number where the column holds numbers, else by text.
function makeSortable(table) {
  const body = table.tBodies[0];
  const heads = table.tHead?.rows.length === 1 ? [...table.tHead.rows[0].cells] : [];
  if (!body || body.rows.length < 10 || !heads.length) return;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const value = (row) => row.cells[column]?.textContent.trim() ?? "";
      const number = (row) => Number.parseFloat(value(row).replace(/[,%]/g, "").replace("−", "-"));
      const rank = (row) => (Number.isNaN(number(row)) ? -Infinity : number(row));
      const compare = head.classList.contains("number")
        ? (a, b) => rank(a) - rank(b) || 0
        : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => (up ? compare(a, b) : compare(b, a))));
    });
  });
}

// A table of data can be had as a file, its rows in the order in which they stand.
function addDownload(table, number) {
  if (!table.tHead) return;
  const quoted = (cell) => `"${cell.textContent.trim().replace(/\s+/g, " ").replaceAll('"', '""')}"`;
  const link = document.createElement("a");
  link.className = "csv";
  link.textContent = "CSV";
  link.href = "#";
  link.download = `${fileName}-table-${number + 1}.csv`;
  link.addEventListener("click", () => {
    const lines = [...table.rows].map((row) => [...row.cells].map(quoted).join(","));
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  });
  (table.closest(".scroll, .rich") ?? table).after(link);
}

document.querySelectorAll("table").forEach((table, number) => {
  alignColumns(table);
  makeSortable(table);
  addDownload(table, number);
});

if (window.Plotly) {
  drawFrom(0);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(false));
  window.addEventListener("beforeprint", () => {
    root.classList.add("light");
    drawAll(true);
  });
  window.addEventListener("afterprint", () => {
    root.classList.remove("light");
    drawAll(false);
  });
} else {
  figures.forEach((figure) => {
    figure.textContent = "This figure needs ../assets/plotly.min.js beside the report's folder.";
  });
}

const button = document.getElementById("all-code");
button?.addEventListener("click", () => {
  const open = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(open));
  button.textContent = open ? "Hide all code" : "Show all code";
  document.querySelectorAll("details.code").forEach((code) => (code.open = open));
});
