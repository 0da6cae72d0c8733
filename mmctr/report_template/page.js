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

drawAll();
dark.addEventListener("change", drawAll);

const button = document.getElementById("all-code");
button.addEventListener("click", () => {
  const open = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(open));
  button.textContent = open ? "Hide all code" : "Show all code";
  document.querySelectorAll("details.code").forEach((code) => (code.open = open));
});
