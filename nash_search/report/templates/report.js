"use strict";
// Draws the figures in the reader's colours and sorts the tables. No network, no eval.
const figures = JSON.parse(document.getElementById("figures").textContent);
const root = document.documentElement;
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const coarse = matchMedia("(pointer: coarse)").matches;

function dark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
}

function draw() {
  const narrow = innerWidth < 600;
  for (const [name, figure] of Object.entries(figures[dark() ? "dark" : "light"])) {
    const place = document.getElementById("plot-" + name);
    // a finger scrolls the page; only a mouse drags inside a figure
    const layout = { ...figure.layout, dragmode: coarse || narrow ? false : "zoom" };
    const data = structuredClone(figure.data);
    if (narrow && name === "front") {
      layout.height = 480;
      for (const trace of data) if (trace.mode === "markers+text") trace.mode = "markers"; // no room beside the marks
    }
    Plotly.react(place, data, structuredClone(layout), { responsive: true, displayModeBar: false });
  }
}

document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  draw();
});
systemDark.addEventListener("change", draw);
draw();

for (const head of document.querySelectorAll("table[data-sortable] th")) {
  head.firstElementChild.addEventListener("click", () => {
    const table = head.closest("table");
    const index = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[index].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what has no value stays last
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  });
}
