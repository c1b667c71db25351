"use strict";
// Tables of a figure's numbers: one to read on the page, and a tidy one (a row a number) as CSV.
const figureTables = (() => {
  const show = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? String(+value.toFixed(4)) : String(value));
  const plain = (text) => show(text).replace(/<br>/g, " ").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  const titleOf = (axis, otherwise) => plain((axis && axis.title && axis.title.text) || otherwise);

  // What a place of an axis is called: its tick's words, unless these are the number itself.
  function placesOf(axis) {
    const ticks = new Map((axis.tickvals || []).map((at, i) => [at, axis.ticktext[i]]));
    const near = (at) => (ticks.has(at) ? at : typeof at === "number" ? Math.round(at) : at);
    return (at) => (ticks.has(near(at)) && Number.isNaN(Number(ticks.get(near(at)))) ? plain(ticks.get(near(at))) : show(at));
  }
  const seriesOf = (data) => data.filter((trace) => trace.hoverinfo !== "skip");
  // Along which axis the places lie, and along which the numbers.
  const axesOf = (layout) => (layout.meta.table === "forest" ? ["y", "x"] : ["x", "y"]);

  // Columns and rows with a row for each number; intervals as two columns.
  function tidy({ data, layout }) {
    if (layout.meta.table === "grid") {
      const [map] = data;
      const [across, up] = [placesOf(layout.xaxis), placesOf(layout.yaxis)];
      const head = [titleOf(layout.yaxis, "row"), titleOf(layout.xaxis, "column"), layout.meta.unit || "value"];
      const cells = map.y.flatMap((name, row) => map.x.map((x, i) => [plain(up(name)), across(x), map.z[row][i]]));
      return [head, ...cells.filter(([, , value]) => value !== null)];
    }
    const [place, value] = axesOf(layout);
    const names = [titleOf(layout[`${place}axis`], "place"), titleOf(layout[`${value}axis`], "value")];
    if (layout.meta.table === "points") {
      const rows = seriesOf(data).flatMap((trace) => trace.x.map((x, i) => [plain(trace.name), trace.customdata[i], x, trace.y[i]]));
      return [["series", "trace", ...names], ...rows];
    }
    const at = placesOf(layout[`${place}axis`]);
    const rows = seriesOf(data).flatMap((trace) => trace[place].map((where, i) => [plain(trace.name), at(where), trace[value][i], ...trace.customdata[i]]));
    return [["series", ...names, "low", "high"], ...rows.filter((row) => row[2] !== null)];
  }

  // A text that a spreadsheet would take for a formula gets an apostrophe before it.
  const field = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const safe = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : String(value);
    return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  const csv = (figure) => tidy(figure).map((row) => row.map(field).join(",") + "\n").join("");

  // The table on the page: places down, series across.
  function wide({ data, layout }) {
    if (layout.meta.table === "grid") {
      const [map] = data;
      const [across, up] = [placesOf(layout.xaxis), placesOf(layout.yaxis)];
      const kept = map.x.map((x, i) => i).filter((i) => map.x[i] >= 0 || across(map.x[i]) !== show(map.x[i]));
      const up_title = layout.yaxis.title && layout.yaxis.title.text ? `${plain(layout.yaxis.title.text)} \\ ` : "";
      const corner = up_title + titleOf(layout.xaxis, "place");
      return [[corner, ...kept.map((i) => across(map.x[i]))], ...map.y.map((name, row) => [plain(up(name)), ...kept.map((i) => show(map.z[row][i]))])];
    }
    if (layout.meta.table === "points") return tidy({ data, layout }).map((row) => row.map(show));
    const [place, value] = axesOf(layout);
    const axis = layout[`${place}axis`];
    const series = seriesOf(data);
    // Series of a forest plot lie beside one another inside the row of their place.
    const round = layout.meta.table === "forest" ? Math.round : (at) => at;
    const places = [...new Set(series.flatMap((trace) => trace[place].map(round)))].sort((a, b) => a - b);
    const cell = (trace, where) => {
      const i = trace[place].findIndex((at) => round(at) === where);
      if (i < 0 || trace[value][i] === null) return "";
      const [low, high] = trace.customdata[i];
      return low === null ? show(trace[value][i]) : `${show(trace[value][i])} [${show(low)}, ${show(high)}]`;
    };
    const head = [titleOf(axis, "place"), ...series.map((trace) => plain(trace.name))];
    return [head, ...places.map((where) => [placesOf(axis)(where), ...series.map((trace) => cell(trace, where))])];
  }

  return { wide, csv };
})();
