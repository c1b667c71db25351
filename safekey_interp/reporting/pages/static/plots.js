// Draws the figures that Python prepared: picks the variant that the select boxes name, and repaints it for the page's theme.
const figures = (() => {
  const book = JSON.parse(document.getElementById("figures-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // A finger that drags over a plot scrolls the page; buttons zoom.
  const isCoarse = window.matchMedia("(pointer: coarse)").matches;
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
  const groupOf = Object.fromEntries(Object.entries(book.groups).flatMap(([group, { panels }]) => Object.keys(panels).map((panel) => [panel, group])));
  const titleOf = (panelName) => document.getElementById(`${panelName}-title`).textContent;
  const configOf = (panelName) => ({
    displaylogo: false,
    responsive: true,
    doubleClick: "reset",
    modeBarButtons: [
      ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"],
      ["png", "csv"].map((kind) => ({
        name: kind,
        title: `Save as ${kind.toUpperCase()}`,
        icon: kind === "png" ? Plotly.Icons.camera : Plotly.Icons.disk,
        click: () => api.onSave(panelName, kind),
      })),
    ],
  });

  // Names of series, and of a forest plot's rows, leave room for the plot where there is little: a few words a line.
  const NARROW = 440;
  const lengthOf = (text) => text.replace(/&\w+;/g, "x").length;
  const wrapped = (text, width) => {
    const lines = [""];
    text.split(/<br>| /).forEach((word) => {
      const last = lines.length - 1;
      if (lines[last] && lengthOf(lines[last]) + lengthOf(word) > width) lines.push(word);
      else lines[last] += lines[last] ? ` ${word}` : word;
    });
    return lines.join("<br>");
  };
  function fitted({ data, layout }, plot) {
    if (plot.clientWidth > NARROW) return { data, layout };
    const isForest = layout.meta.table === "forest";
    const { title } = layout.xaxis;
    layout = { ...layout, xaxis: { ...layout.xaxis, title: { ...title, text: wrapped((title && title.text) || "", 36) } } };
    const named = data.map((trace) => (trace.name ? { ...trace, name: wrapped(trace.name, isForest ? 18 : 34) } : trace));
    if (!isForest) return { data: named, layout };
    const names = layout.yaxis.ticktext.map((text) => wrapped(text, 15));
    const linesOf = (text) => text.split("<br>").length;
    const legend = named.reduce((sum, { name }) => sum + linesOf(name), 0);
    const height = 80 + 17 * (legend + names.length * Math.max(2, ...names.map(linesOf)));
    return { data: named, layout: { ...layout, height: Math.max(250, height), yaxis: { ...layout.yaxis, ticktext: names, tickfont: { size: 12 } } } };
  }

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
    const { data, layout } = fitted(painted(figure), plot);
    caption.textContent = layout.meta.caption;
    if (layout.height) plot.style.minHeight = `${layout.height}px`;
    const dragmode = isCoarse ? { dragmode: false } : {};
    Plotly.react(plot, data, { ...layout, ...dragmode, autosize: true, template: { layout: book.templates[theme()] } }, configOf(panelName));
    plot.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: { panel: panelName, group: groupName } }));
    fill(panelName);
  }

  // The text alternative: the numbers that the plot shows, built when it is opened.
  function fill(panelName) {
    const block = document.querySelector(`[data-panel="${CSS.escape(panelName)}"]`);
    const box = block.querySelector(".numbers");
    if (!block.querySelector("details").open) return;
    box.replaceChildren();
    if (!current.has(panelName)) return;
    const [head, ...rows] = figureTables.wide(current.get(panelName));
    const table = make("table");
    const caption = make("caption", titleOf(panelName) + (current.get(panelName).layout.meta.unit && `: ${current.get(panelName).layout.meta.unit}`) + (rows.length > MAX_ROWS ? ` (first ${MAX_ROWS} of ${rows.length} rows)` : ""));
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
  });
  dark.addEventListener("change", drawAll);
  const forPrint = (on) => () => {
    printing = on;
    document.querySelectorAll("details.findings").forEach((box) => (box.open = on));
    drawAll();
    document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.relayout(plot, on ? { autosize: false, width: 640 } : { autosize: true, width: null }));
  };
  window.addEventListener("beforeprint", forPrint(true));
  window.addEventListener("afterprint", forPrint(false));
  const api = {
    drawAll,
    titleOf,
    // What a select box of the panel's group says.
    chosen: (panelName, name) => (name in book.groups[groupOf[panelName]].choices ? chosen(groupOf[panelName], name) : undefined),
    // The panel's figure as it is chosen now, in the colours of a light page; undefined where it was not measured.
    current: (panelName) => current.get(panelName),
    lightLook: book.templates.light,
    redraw: (panelName) => draw(groupOf[panelName], panelName),
    onSave: () => {},
  };
  return api;
})();
