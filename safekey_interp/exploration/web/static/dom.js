// Elements with text, and numbers in words. Text is set with textContent alone: nothing from a model is HTML.
// Elements of one page by name: of the document, or of the shadow root that a notebook's widget draws in.
export const finder = (root) => (id) => root.getElementById(id);

export function make(name, { text, ...attributes } = {}, ...children) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";
export function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

export function setOptions(box, options, wanted) {
  const before = wanted ?? box.value;
  box.replaceChildren(...options.map(([value, text]) => make("option", { value, text })));
  if (options.some(([value]) => value === before)) box.value = before;
}

export const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`);
export const number = (value, digits = 2) => (value === null || value === undefined ? "–" : (Number(value.toFixed(digits)) || 0).toFixed(digits).replace("-", "−"));
export const signed = (value, digits = 2) => (value === null || value === undefined ? "–" : `${Number(value.toFixed(digits)) === 0 ? "±" : value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`);

// The refusal judge's labels in words.
export const LABELS = { full_refusal: "refuses", partial_refusal: "refuses in part", full_compliance: "complies" };

// What a browser remembers, where it is allowed to.
export const remembered = {
  get(store, name) {
    try {
      return window[store].getItem(name);
    } catch {
      return null;
    }
  },
  set(store, name, value) {
    try {
      window[store].setItem(name, value);
    } catch {
      // A page in a frame of another site has no storage, and is as usable without.
    }
  },
};
