// Prompt, earlier turns, models and settings of what is asked next; presets from the traces fill it.
import { LABELS, make, setOptions } from "./dom.js";

const WANTED = [["harmful", "full_compliance"], ["harmful", "full_refusal"], ["benign", "full_compliance"]];
const rank = (presets, name) => {
  const { label, outcome, margin } = presets.find((preset) => kind(preset) === name);
  const at = WANTED.findIndex((wanted) => wanted[0] === label && wanted[1] === outcome);
  return (at < 0 ? WANTED.length : at) - (margin > 0 ? 0.5 : 0);
};
const short = (text) => (text.length > 70 ? `${text.slice(0, 70)}…` : text).replace(/\s+/g, " ");
const kind = ({ label, outcome, margin }) => [label, outcome && `the trace ${LABELS[outcome]}`, margin > 0 && "signal in the states"].filter(Boolean).join(", ");

export class PromptForm {
  // onSubmit() hears of Run, onExample() of an example that was chosen, and filled in.
  constructor({ $, onSubmit, onExample }) {
    Object.assign(this, { $, onExample, presets: [] });
    $("ask").addEventListener("submit", (event) => (event.preventDefault(), onSubmit()));
    $("add-turn").addEventListener("click", () => this.#addTurn().focus());
    $("preset").addEventListener("change", () => $("preset").value && this.fill(this.presets[Number($("preset").value)]));
  }

  show({ models, presets }) {
    this.presets = presets;
    this.$("models").hidden = models.length < 2;
    this.$("models").replaceChildren(
      make("legend", { class: "unseen", text: "Models" }),
      ...models.map(({ name }, i) => make("label", { class: "tick" }, make("input", { type: "checkbox", value: i, checked: true, autocomplete: "off" }), make("span", { text: name }))),
    );
    const first = presets.length ? "choose a prompt" : "no traces given";
    setOptions(this.$("preset"), [["", first]], "");
    const kinds = [...new Set(presets.map(kind))].sort((a, b) => rank(presets, a) - rank(presets, b));
    for (const name of kinds) {
      const of = presets.map((preset, i) => [preset, i]).filter(([preset]) => kind(preset) === name);
      this.$("preset").append(make("optgroup", { label: name || "no label" }, ...of.map(([preset, i]) => make("option", { value: String(i), text: short(preset.prompt) }))));
    }
    // One of each kind: of harmful prompts that were answered, one whose states have a signal, which can be woken: the strongest
    // of those where the model is as sure of its K as in the median, or surer.
    const found = WANTED.map(([label, outcome]) => {
      const of = presets.filter((preset) => preset.label === label && preset.outcome === outcome);
      const found = of.filter(({ margin, certainty }) => margin > 0 && certainty !== null).sort((one, other) => other.certainty - one.certainty);
      const sure = found.slice(0, Math.ceil(found.length / 2));
      return sure.sort((one, other) => other.margin - one.margin)[0] ?? of.find(({ margin }) => margin > 0) ?? of[0];
    });
    const offered = found.some(Boolean) ? found.filter(Boolean) : presets.slice(0, 3);
    this.$("examples").replaceChildren(
      ...offered.map((preset) => {
        const button = make("button", { type: "button" }, make("bdi", { text: short(preset.prompt) }), make("span", { class: "muted", text: kind(preset) }));
        button.addEventListener("click", () => (this.fill(preset), this.onExample()));
        return button;
      }),
    );
  }

  fill({ prompt, turns }) {
    this.$("prompt").value = prompt;
    this.$("system").value = turns.filter(({ role }) => role === "system").map(({ content }) => content).join("\n");
    this.$("turns").replaceChildren();
    turns.filter(({ role }) => role !== "system").forEach(({ role, content }) => this.#addTurn(role, content));
    this.$("context").open = turns.length > 0;
  }

  get prompt() {
    return this.$("prompt").value;
  }

  // As the session is asked; its models by number.
  asked() {
    const boxes = [...this.$("models").querySelectorAll("input")];
    return {
      prompt: this.prompt,
      system: this.$("system").value || null,
      turns: [...this.$("turns").children].map((row) => ({ role: row.children[0].value, content: row.children[1].value })),
      models: boxes.filter(({ checked }) => checked).map(({ value }) => Number(value)),
      seed: Number(this.$("seed").value), temperature: Number(this.$("temperature").value), max_new_tokens: Number(this.$("longest").value),
    };
  }

  #addTurn(role = "user", content = "") {
    const box = make("select", { "aria-label": "Who says it", autocomplete: "off" }, make("option", { value: "user", text: "user" }), make("option", { value: "assistant", text: "assistant" }));
    box.value = role;
    const text = make("textarea", { rows: "2", "aria-label": "Earlier turn", autocomplete: "off", spellcheck: "false" });
    text.value = content;
    const remove = make("button", { type: "button", class: "small", text: "Remove" });
    const row = make("div", { class: "turn" }, box, text, remove);
    remove.addEventListener("click", () => row.remove());
    this.$("turns").append(row);
    return text;
  }
}
