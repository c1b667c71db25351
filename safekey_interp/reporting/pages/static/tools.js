// Tools of the figures: zoom and pan by button and key, PNG, SVG and CSV, and clicks that lead to the token view.
(() => {
  const plotOf = (panel) => document.getElementById(`${panel}-plot`);
  const panelOf = (node) => node.closest("[data-panel]").dataset.panel;

  // Every axis's range times `factor` about its middle, moved by a share of itself.
  function move(plot, factor, across = 0, up = 0) {
    if (!plot._fullLayout) return;
    const change = {};
    Object.keys(plot._fullLayout).filter((name) => /^[xy]axis\d*$/.test(name)).forEach((name) => {
      const [from, to] = plot._fullLayout[name].range;
      const [middle, half] = [(from + to) / 2 + (to - from) * (name[0] === "x" ? across : up), ((to - from) / 2) * factor];
      change[`${name}.range`] = [middle - half, middle + half];
    });
    Plotly.relayout(plot, change);
  }

  function download(href, name) {
    Object.assign(document.createElement("a"), { href, download: name }).click();
  }

  function save(panel, kind) {
    const figure = figures.current(panel);
    if (!figure) return;
    if (kind === "csv") {
      const href = URL.createObjectURL(new Blob([figureTables.csv(figure)], { type: "text/csv" }));
      download(href, `${panel}.csv`);
      setTimeout(() => URL.revokeObjectURL(href), 10000);
      return;
    }
    // On white, in the colours of a light page, with its heading, as it is zoomed now.
    const plot = plotOf(panel);
    const axes = Object.keys(plot._fullLayout).filter((name) => /^[xy]axis\d*$/.test(name));
    const ranges = Object.fromEntries(axes.map((name) => [name, { ...figure.layout[name], range: plot._fullLayout[name].range, autorange: false }]));
    const look = { ...figures.lightLook, margin: { l: 8, r: 8, t: 76, b: 8 }, paper_bgcolor: "#ffffff" };
    const text = figures.titleOf(panel).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    const title = { text, x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: { t: 10 } };
    const layout = { ...figure.layout, ...ranges, title, template: { layout: look } };
    const size = { width: plot.clientWidth, height: plot.clientHeight + 60 };
    // Plotly.downloadImage revokes the file's address at once, and the browser then loses some of the files.
    Plotly.toImage({ data: figure.data, layout: { ...layout, ...size } }, { format: kind, scale: kind === "png" ? 2 : 1, ...size })
      .then((href) => download(href, `${panel}.${kind}`));
  }
  figures.onSave = save;

  const TOOLS = {
    in: (panel) => move(plotOf(panel), 1 / 1.5),
    out: (panel) => move(plotOf(panel), 1.5),
    reset: (panel) => figures.redraw(panel),
    png: (panel) => save(panel, "png"),
    svg: (panel) => save(panel, "svg"),
    csv: (panel) => save(panel, "csv"),
  };
  const STEP = 0.15;
  const KEYS = {
    "+": TOOLS.in,
    "=": TOOLS.in,
    "-": TOOLS.out,
    0: TOOLS.reset,
    ArrowLeft: (panel) => move(plotOf(panel), 1, -STEP),
    ArrowRight: (panel) => move(plotOf(panel), 1, STEP),
    ArrowUp: (panel) => move(plotOf(panel), 1, 0, STEP),
    ArrowDown: (panel) => move(plotOf(panel), 1, 0, -STEP),
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-tool]");
    if (button) TOOLS[button.dataset.tool](panelOf(button));
  });
  document.addEventListener("keydown", (event) => {
    if (!event.target.classList.contains("plot") || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault();
    KEYS[event.key](panelOf(event.target));
  });

  // A click on a layer, a head or a trace shows it in the token view, where the page has one.
  const NAMED = { layer: "layer", head: "head" };
  function pickOf(panel, { x, y, customdata }, { layout }) {
    if (layout.meta.table === "points") return { trace: customdata };
    const pick = { row: figures.chosen(panel, "from") };
    [["xaxis", x], ["yaxis", y]].forEach(([axis, value]) => {
      const name = NAMED[layout[axis].title && layout[axis].title.text];
      const isNorm = (layout[axis].tickvals || []).includes(value) && Number.isNaN(Number(layout[axis].ticktext[layout[axis].tickvals.indexOf(value)]));
      if (name && !isNorm && Number.isInteger(Number(value))) pick[name] = Number(value);
    });
    return pick;
  }
  const leads = ({ layout }) => layout.meta.table === "points" || "layer" === (layout.xaxis.title && layout.xaxis.title.text);
  const hasTokens = document.getElementById("tokens-view") !== null;
  document.addEventListener("drawn", ({ target: plot, detail: { panel } }) => {
    const isWay = hasTokens && leads(figures.current(panel));
    const hint = plot.closest("figure").querySelector(".hint");
    hint.hidden = !isWay;
    hint.textContent = "Click to see the tokens.";
    plot.classList.toggle("leads", isWay);
    if (plot.dataset.heard) return;
    plot.dataset.heard = "yes";
    // The buttons below do the same: a reader who goes by keyboard, or listens, does not pass through both.
    const skip = () => {
      plot.querySelector(".modebar-container")?.setAttribute("aria-hidden", "true");
      plot.querySelectorAll(".modebar-btn").forEach((button) => (button.tabIndex = -1));
    };
    plot.on("plotly_afterplot", skip);
    skip();
    plot.on("plotly_click", ({ points }) => {
      const figure = figures.current(panel);
      if (hasTokens && figure && leads(figure)) document.dispatchEvent(new CustomEvent("pick", { detail: pickOf(panel, points[0], figure) }));
    });
  });

  figures.drawAll();
  // Plotly measures texts in a drawing of its own, far off the page; no reader should meet it.
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
})();
