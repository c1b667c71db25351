// Grid of layers and heads: one coloured cell each, moved through by arrow keys, with its number said.
import { make } from "./dom.js";

// values: Map of "layer,head" to a number or null. shade(value) gives the colour, say(layer, head, value) the words.
export function heatGrid(box, { nLayers, nHeads, values, shade, say, onPick, chosen, label, testid }) {
  const hadFocus = box.contains(box.getRootNode().activeElement);
  const table = make("table", { class: "heat", role: "grid", "aria-label": label, "data-testid": testid });
  table.style.setProperty("--heads", nHeads);
  const head = make("tr", {}, make("th", { scope: "col", text: "" }));
  for (let h = 0; h < nHeads; h += 1) head.append(make("th", { scope: "col", text: nHeads <= 16 || h % 4 === 0 ? String(h) : "" }));
  const body = make("tbody");
  for (let layer = nLayers - 1; layer >= 0; layer -= 1) {
    const row = make("tr", {}, make("th", { scope: "row", text: nLayers <= 16 || layer % 4 === 0 ? String(layer) : "" }));
    for (let h = 0; h < nHeads; h += 1) {
      const value = values.get(`${layer},${h}`) ?? null;
      const isChosen = chosen?.[0] === layer && chosen?.[1] === h;
      const words = say(layer, h, value);
      const cell = make("td", {
        role: "gridcell", tabindex: "-1", "data-layer": layer, "data-head": h, "data-value": value === null ? "" : String(value),
        "aria-label": words, "aria-selected": String(isChosen), title: words,
      });
      if (value !== null) cell.style.setProperty("background-color", shade(value));
      row.append(cell);
    }
    body.append(row);
  }
  table.append(make("thead", {}, head), body);
  const cells = [...table.querySelectorAll("td")];
  const at = chosen ? cells.findIndex((cell) => cell.ariaSelected === "true") : 0;
  (cells[Math.max(0, at)] ?? table).tabIndex = 0;
  const pick = (cell) => cell && onPick && onPick(Number(cell.dataset.layer), Number(cell.dataset.head));
  table.addEventListener("click", (event) => pick(event.target.closest("td")));
  table.addEventListener("keydown", (event) => {
    const now = cells.indexOf(event.target);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: nHeads, ArrowUp: -nHeads }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      pick(event.target.closest("td"));
    } else if (step && cells[now + step]) {
      event.preventDefault();
      cells[now].tabIndex = -1;
      cells[now + step].tabIndex = 0;
      cells[now + step].focus();
    }
  });
  box.replaceChildren(table);
  if (hadFocus) (cells[Math.max(0, at)] ?? table).focus();
}

export const sequential = (top) => (value) => `color-mix(in oklab, var(--highlight-deep) ${((100 * Math.max(0, value)) / (top || 1)).toFixed(1)}%, var(--surface))`;
// From -1 to 1 on the scale of the reports' lifts.
export const diverging = (share) => {
  const at = (Math.min(1, Math.max(-1, share)) + 1) * 2;
  const step = Math.min(3, Math.floor(at));
  return `color-mix(in oklab, var(--lift-${step + 1}) ${(100 * (at - step)).toFixed(1)}%, var(--lift-${step}))`;
};
