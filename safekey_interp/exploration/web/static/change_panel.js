// Changes to a branch: a span hidden, text edited, a direction added or taken out, K swapped, states patched.
import { setOptions } from "./dom.js";

const SPANS = [["understanding", "U, the understanding"], ["key_sentence", "K, the key sentence"], ["prompt", "X, the prompt"], ["template", "the template"], ["first_token", "the first token"]];
const LATER = [["key_sentence", "K, the key sentence"], ["generated", "all it writes"], ["understanding", "U, the understanding"], ["", "all later tokens"]];
const PLACES = [["", "all tokens"], ["generated", "all it writes"], ["prompt", "X, the prompt"], ["understanding", "U"], ["key_sentence", "K"]];

const CONTROLS = { hide: "as many random tokens hidden", steer: "random directions of equal norm", swap: "neutral sentences, as many as there are", patch: "states of answers to other prompts" };

export class ChangePanel {
  // onFork(body) is asked for a branch of what is shown.
  constructor({ $, onFork }) {
    Object.assign(this, { $, branch: null, readers: [] });
    $("steer-reader").addEventListener("change", () => this.#suggestScale());
    this.tabs = [...$("change").querySelectorAll("[role=tab]")];
    setOptions(this.$("hide-what"), SPANS, "understanding");
    setOptions(this.$("hide-from"), LATER, "key_sentence");
    setOptions(this.$("steer-at"), PLACES, "understanding");
    setOptions(this.$("patch-at"), [["understanding", "U"], ["prompt", "X, the prompt"], ["key_sentence", "K"]], "understanding");
    this.$("steer-kind").addEventListener("change", () => (this.$("steer-scale-choice").hidden = this.$("steer-kind").value !== "steer"));
    this.tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => this.open(tab.dataset.tab));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const next = step && this.tabs[(i + step + this.tabs.length) % this.tabs.length];
        if (next) (this.open(next.dataset.tab), next.focus());
      });
    });
    this.$("change").addEventListener("submit", (event) => event.preventDefault());
    this.$("change").addEventListener("keydown", (event) => {
      const isEnter = event.key === "Enter" && event.target.matches("input, textarea") && !(event.target.matches("textarea") && !event.ctrlKey);
      if (!isEnter) return;
      event.preventDefault();
      event.stopPropagation();
      this.#panel().querySelector("[data-act]").click();
    });
    this.$("change").addEventListener("click", (event) => {
      const act = event.target.closest("[data-act]")?.dataset.act;
      if (act) onFork({ branch: this.$("instead").checked && act !== "edit" ? this.parent : this.branch.branch, control: this.#nControls(act), ...this.#asked(act) });
    });
    this.open("hide");
  }

  open(name) {
    this.tabs.forEach((tab) => {
      const isOpen = tab.dataset.tab === name;
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
    });
    this.$("change").querySelectorAll("[data-panel]").forEach((panel) => (panel.hidden = panel.dataset.panel !== name));
    this.$("with-controls").hidden = name === "edit";
    this.$("control-kind").textContent = CONTROLS[name] ?? "";
    this.$("no-controls").hidden = name !== "edit";
  }

  #nControls(act) {
    const box = this.$("n-controls");
    return act === "edit" ? false : Math.min(50, Math.max(0, Math.round(Number(box.value) || 0)));
  }

  #panel() {
    return this.$("change").querySelector("[data-panel]:not([hidden])");
  }

  show(branch, position, { branches, readers, models }) {
    const isOther = this.branch?.branch !== branch.branch;
    const start = branch.prompt_tokens.length;
    this.branch = branch;
    this.$("change").hidden = false;
    const parent = branches.find((other) => other.branch === branch.parent);
    this.$("instead-choice").hidden = !parent || branch.change === "";
    if (isOther) this.$("instead").checked = false;
    this.parent = parent?.branch;
    this.$("instead-of").textContent = parent ? `leave out “${branch.name}”: change ${parent.name} again` : "";
    const by = models.length > 1 ? `, by ${models[branch.model].name}` : "";
    this.$("change-title").textContent = `Change and continue: ${branch.name}${by}`;
    const key = branch.spans.key_sentence;
    const at = position !== null && position >= start ? position : key ? key[0] : start + branch.tokens.length;
    if (at !== this.at || isOther) {
      this.at = at;
      const end = key && at >= key[0] && at < key[1] ? key[1] : branch.spans.understanding && at < branch.spans.understanding[1] ? branch.spans.understanding[1] : start + branch.tokens.length;
      const text = branch.tokens.slice(at - start, end - start).map((token) => token.text).join("");
      this.$("edit-text").value = text;
      this.$("edit-label").textContent = at < start + branch.tokens.length ? `Text from token ${at - start + 1} on; what followed is written anew` : "Text behind the last token";
    }
    // Differences of class means first: their scale 1 is the distance of the means, while a probe's is one logit.
    const ranked = [...readers].sort((a, b) => b.is_direction - a.is_direction);
    if (ranked.map(({ name }) => name).join() !== this.readers.map(({ name }) => name).join()) {
      this.readers = ranked;
      setOptions(this.$("steer-reader"), ranked.map(({ name }) => [name, name]));
      this.#suggestScale();
    }
    const others = branches.filter((other) => other.branch !== branch.branch && other.model === branch.model);
    setOptions(this.$("patch-source"), others.length ? others.map((other) => [other.branch, other.name]) : [["", "run another prompt first"]]);
    this.#panelButton("steer").disabled = !readers.length;
    this.#panelButton("patch").disabled = !others.length;
    this.#panelButton("swap").disabled = key === null;
  }

  #suggestScale() {
    const reader = this.readers.find(({ name }) => name === this.$("steer-reader").value);
    this.$("steer-scale").value = reader?.is_direction ? 1.5 : 0.2;
  }

  #panelButton(act) {
    return this.$("change").querySelector(`[data-act=${act}]`);
  }

  #asked(act) {
    if (act === "hide") {
      const edit = { kind: "hide", span: this.$("hide-what").value, from_: this.$("hide-from").value || null, layers: numbers(this.$("hide-layers")), heads: numbers(this.$("hide-heads")) };
      return { edits: [edit] };
    }
    if (act === "edit") return { at: this.at, text: this.$("edit-text").value };
    if (act === "steer") {
      const positions = this.$("steer-at").value ? [this.$("steer-at").value] : null;
      const edit = { kind: this.$("steer-kind").value, reader: this.$("steer-reader").value, positions, layers: numbers(this.$("steer-layers")) };
      return { edits: [{ ...edit, ...(edit.kind === "steer" ? { scale: Number(this.$("steer-scale").value) } : {}) }] };
    }
    if (act === "swap") return { swap: this.$("swap-kind").value };
    return { patch: { source: this.$("patch-source").value, positions: this.$("patch-at").value, layers: numbers(this.$("patch-layers")) } };
  }
}

// "0-3, 7" as numbers; null for all.
function numbers(box) {
  const text = box.value.trim();
  if (!text || text === "all") return null;
  return text.split(",").flatMap((piece) => {
    const match = /^\s*(\d+)(?:\s*-\s*(\d+))?\s*$/.exec(piece);
    if (!match || Number(match[2] ?? match[1]) - Number(match[1]) > 1000) throw new Error(`${box.closest("label").textContent.trim()}: got ${piece.trim() || "nothing"}, expected numbers and ranges, such as 0-3, 7`);
    const [first, last] = [Number(match[1]), Number(match[2] ?? match[1])];
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
  });
}
