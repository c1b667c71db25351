"use strict";
// Draws the figures that Python prepared: picks the variant that the select boxes name, and repaints it for the page's theme.
(() => {
  const book = JSON.parse(document.getElementById("figures-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const CONFIG = { displayModeBar: false, displaylogo: false, responsive: true, scrollZoom: false, doubleClick: false };
  const MAX_ROWS = 400;
  let printing = false;

  const theme = () => (dark.matches && !printing ? "dark" : "light");
  const make = (name, text) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Parts that repeat between figures are stored once; colours are those of a light page.
  const expand = (value) => {
    if (Array.isArray(value)) return value.map(expand);
    if (value === null || typeof value !== "object") return value;
    if ("$" in value) return expand(book.shared[value.$]);
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, expand(item)]));
  };
  const repaint = (value, key) => {
    if (typeof value === "string") return /color/.test(key) && Object.hasOwn(book.dark, value) ? book.dark[value] : value;
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map((item) => repaint(item, key));
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, repaint(item, name)]));
  };
  const painted = (figure) => (theme() === "light" ? figure : repaint(figure, ""));

  const chosen = (groupName, name) => {
    const box = document.getElementById(`${groupName}-${name}`);
    return box ? box.value : book.groups[groupName].choices[name];
  };
  const current = new Map();

  function draw(groupName, panelName) {
    const plot = document.getElementById(`${panelName}-plot`);
    if (!plot) return;
    const key = book.groups[groupName].panels[panelName].map((name) => chosen(groupName, name)).join("|");
    const caption = document.getElementById(`${panelName}-caption`);
    const stored = book.variants[panelName][key];
    const block = plot.closest("figure");
    block.classList.toggle("missing", !stored);
    if (!stored) {
      current.delete(panelName);
      caption.textContent = "Not measured: this run has no numbers for this choice.";
      Plotly.purge(plot);
      fill(panelName);
      return;
    }
    const figure = expand(stored);
    current.set(panelName, figure);
    const { data, layout } = painted(figure);
    caption.textContent = layout.meta.caption;
    plot.style.minHeight = `${layout.height}px`;
    Plotly.react(plot, data, { ...layout, autosize: true, template: { layout: book.templates[theme()] } }, CONFIG);
    fill(panelName);
  }

  // The text alternative: the numbers that the plot shows, built when it is opened.
  const show = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? String(+value.toFixed(4)) : String(value));
  const plain = (text) => show(text).replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  function rowsOf({ data, layout }) {
    const ticks = new Map((layout.xaxis.tickvals || []).map((at, i) => [at, layout.xaxis.ticktext[i]]));
    const at = (x) => (ticks.has(x) && Number.isNaN(Number(ticks.get(x))) ? ticks.get(x) : show(x));
    if (layout.meta.table === "grid") {
      const map = data[0];
      const corner = layout.yaxis.title && layout.yaxis.title.text ? `${layout.yaxis.title.text} \\ layer` : "layer";
      const kept = map.x.map((x, i) => i).filter((i) => map.x[i] >= 0 || ticks.has(map.x[i]));
      return [[corner, ...kept.map((i) => at(map.x[i]))], ...map.y.map((name, row) => [plain(name), ...kept.map((i) => show(map.z[row][i]))])];
    }
    const series = data.filter((trace) => trace.hoverinfo !== "skip");
    if (layout.meta.table === "points") {
      return [["trace", "class", layout.xaxis.title.text, layout.yaxis.title.text]].concat(
        series.flatMap((trace) => trace.x.map((x, i) => [trace.customdata[i], plain(trace.name), show(x), show(trace.y[i])])),
      );
    }
    const places = [...new Set(series.flatMap((trace) => trace.x))].sort((a, b) => a - b);
    const cell = (trace, x) => {
      const i = trace.x.indexOf(x);
      if (i < 0 || trace.y[i] === null) return "";
      const [low, high] = trace.customdata[i];
      return low === null ? show(trace.y[i]) : `${show(trace.y[i])} [${show(low)}, ${show(high)}]`;
    };
    return [["layer", ...series.map((trace) => plain(trace.name))], ...places.map((x) => [at(x), ...series.map((trace) => cell(trace, x))])];
  }
  function fill(panelName) {
    const block = document.querySelector(`[data-panel="${CSS.escape(panelName)}"]`);
    const box = block.querySelector(".numbers");
    if (!block.querySelector("details").open) return;
    box.replaceChildren();
    if (!current.has(panelName)) return;
    const [head, ...rows] = rowsOf(current.get(panelName));
    const table = make("table");
    const caption = make("caption", block.querySelector("h4").textContent + (current.get(panelName).layout.meta.unit && `: ${current.get(panelName).layout.meta.unit}`) + (rows.length > MAX_ROWS ? ` (first ${MAX_ROWS} of ${rows.length} rows)` : ""));
    const top = make("tr");
    head.forEach((text) => top.append(Object.assign(make("th", text), { scope: "col" })));
    const body = make("tbody");
    rows.slice(0, MAX_ROWS).forEach(([first, ...rest]) => {
      const row = make("tr");
      row.append(Object.assign(make("th", first), { scope: "row" }), ...rest.map((text) => make("td", text)));
      body.append(row);
    });
    const thead = make("thead");
    thead.append(top);
    table.append(caption, thead, body);
    box.append(table);
  }

  const drawAll = () => Object.entries(book.groups).forEach(([group, { panels }]) => Object.keys(panels).forEach((panel) => draw(group, panel)));
  Object.entries(book.groups).forEach(([groupName, { panels }]) => {
    const group = document.querySelector(`[data-group="${CSS.escape(groupName)}"]`);
    if (!group) return;
    group.addEventListener("submit", (event) => event.preventDefault());
    group.addEventListener("change", (event) => {
      const name = event.target.id.slice(groupName.length + 1);
      Object.entries(panels).forEach(([panel, uses]) => uses.includes(name) && draw(groupName, panel));
    });
  });
  document.querySelectorAll(".panel").forEach((block) => {
    const name = block.dataset.panel;
    block.querySelector("details").addEventListener("toggle", () => fill(name));
    block.querySelector(".save").addEventListener("click", () => {
      const plot = document.getElementById(`${name}-plot`);
      Plotly.downloadImage(plot, { format: "svg", filename: name, width: plot.clientWidth, height: plot.clientHeight });
    });
  });
  dark.addEventListener("change", drawAll);
  const forPrint = (on) => () => {
    printing = on;
    drawAll();
    document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.relayout(plot, on ? { autosize: false, width: 640 } : { autosize: true, width: null }));
  };
  window.addEventListener("beforeprint", forPrint(true));
  window.addEventListener("afterprint", forPrint(false));
  drawAll();
  // Plotly measures texts in a drawing of its own, far off the page; no reader should meet it.
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
})();
