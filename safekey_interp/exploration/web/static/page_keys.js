// Keys of a page: one each for what its buttons do and for where the focus goes.
import { showKeys } from "./tour.js";

// Listens in the page's root; the function that it returns presses one of them.
export function listenToKeys(page) {
  const { $ } = page;
  const focusTokens = () => page.views.get(page.shown.selected)?.pane.focus();
  const focusColumns = () => $("columns").focus({ preventScroll: true });
  const keys = {
    s: () => $("step").click(),
    r: () => $("replay").click(),
    p: () => $("prompt").focus(),
    t: focusTokens,
    k: () => {
      const view = page.views.get(page.shown.selected);
      const key = view?.branch.spans.key_sentence;
      focusTokens();
      if (key) view.choose(key[0]);
    },
    g: () => $("grid").querySelector("td[tabindex='0']")?.focus(),
    c: () => $("change").querySelector("[role=tab][aria-selected=true]").focus(),
    b: () => $("branches").focus(),
    "?": () => showKeys($),
  };
  page.root.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return event.preventDefault(), focusColumns(), void page.submit();
    if (event.key === "Escape" && $("stop").disabled && event.target === $("prompt")) return focusColumns();
    if (event.key === "Escape" && !$("stop").disabled && !$("keys").open) return void $("stop").click();
    const isTyping = event.target.closest("input, textarea, select, dialog");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  return (key) => keys[key]();
}
