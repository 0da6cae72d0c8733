// Draws the figures of a page in the colours of its theme, and shows or hides all code.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function themed(layout) {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axes = Object.keys({ xaxis: 0, yaxis: 0, ...layout }).filter((k) => /^[xy]axis\d*$/.test(k));
  const lines = { gridcolor: color("--line"), zerolinecolor: color("--line") };
  const themedAxes = axes.map((name) => [name, { ...layout[name], ...lines }]);
  return {
    ...layout,
    ...Object.fromEntries(themedAxes),
    autosize: true,
    font: { ...layout.font, color: color("--quiet") },
    hoverlabel: { ...layout.hoverlabel, bgcolor: color("--raised"), font: { color: color("--ink") } },
  };
}

function draw(figure) {
  const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
  const narrow = figure.clientWidth < 520 ? { margin: { l: 45, r: 10, t: 45, b: 45 } } : {};
  const config = { responsive: true, displaylogo: false };
  return Plotly.react(figure.querySelector("div"), data, { ...themed(layout), ...narrow }, config);
}

function drawAll() {
  document.querySelectorAll(".plotly-figure").forEach(draw);
}

// Right-aligns the columns of a table that hold numbers only, with their headings.
function alignNumbers(table) {
  const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
  const heads = table.tHead ? [...table.tHead.rows] : [];
  const isNumber = (text) => /^[-−+]?\d[\d.,]*(e[-+]?\d+)?( ?%)?$/.test(text);
  const isGap = (text) => /^(|nan|<na>|none)$/i.test(text);
  for (let column = 0; column < (rows[0]?.cells.length ?? 0); column++) {
    const cells = rows.map((row) => row.cells[column]).filter((cell) => cell?.tagName === "TD");
    const texts = cells.map((cell) => cell.textContent.trim());
    if (texts.some(isNumber) && texts.every((text) => isNumber(text) || isGap(text))) {
      [...cells, ...heads.map((row) => row.cells[column])].forEach((c) => c?.classList.add("number"));
    }
  }
}

document.querySelectorAll(".rich table, .words table").forEach(alignNumbers);
if (window.Plotly) {
  drawAll();
  dark.addEventListener("change", drawAll);
} else {
  document.querySelectorAll(".plotly-figure div").forEach((figure) => {
    figure.textContent = "This figure needs ../assets/plotly.min.js beside the report's folder.";
  });
}

const button = document.getElementById("all-code");
button.addEventListener("click", () => {
  const open = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(open));
  button.textContent = open ? "Hide all code" : "Show all code";
  document.querySelectorAll("details.code").forEach((code) => (code.open = open));
});
