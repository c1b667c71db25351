// Tour of five steps on the first visit, which covers nothing and can be put away; and the list of keys.
import { make, remembered } from "./dom.js";

const STEPS = [
  ["prompt", "Ask", "Type a prompt, or take one from the traces. Run writes the answer token by token; Stop ends it within one."],
  ["columns", "Watch", "U is what the model understood, K the sentence that decides. The probe was fitted at the last token before K: the chip says whether its score there passes the alarm line, a signal, though the answer may comply."],
  ["columns", "Look", "Choose a token, by click or arrow keys: at the right, which head looks at which span, what heads write, and what each layer would say next. The text is shaded by where the token looks."],
  ["change", "Change", "Hide U from K, edit the text, steer, swap K. The branch is written from the same seed, beside its parent and random controls, which are counted: 2 of 5 may refuse by chance."],
  ["branches", "Keep", "Branches form a tree, kept in the run folder as you go. Each shows the Python that repeats it; Save traces downloads a file that probe reads."],
];
const KEYS = [
  ["Ctrl Enter", "run the prompt"], ["Esc", "stop"], ["s", "one more token"], ["r", "replay"], ["p", "to the prompt"],
  ["t", "to the tokens"], ["k", "to the key sentence"], ["← → ↑ ↓", "token, cell or branch"], ["Page Up, Page Down", "span"],
  ["g", "to the attention grid; Enter takes a head"], ["c", "to the change"], ["b", "to the branches; F2 renames, Delete deletes"], ["Shift ↑ ↓", "in the branches: the one to compare with"],
  ["?", "this list"],
];
const STORED = "safekey-explore-tour";

export function setUpTour($) {
  let [at, toured] = [0, null];
  const close = () => {
    $("tour").hidden = true;
    toured?.classList.remove("toured");
    remembered.set("localStorage", STORED, "seen");
  };
  const open = (step) => {
    at = Math.min(Math.max(step, 0), STEPS.length - 1);
    const [target, title, text] = STEPS[at];
    toured?.classList.remove("toured");
    toured = $(target);
    toured.classList.add("toured");
    const button = (words, act, more = {}) => {
      const made = make("button", { type: "button", text: words, ...more });
      made.addEventListener("click", act);
      return made;
    };
    const isLast = at === STEPS.length - 1;
    $("tour").replaceChildren(
      make("p", {}, make("b", { text: `${at + 1} of ${STEPS.length}: ${title}. ` }), text),
      make("div", { class: "buttons" }, isLast ? button("Done", close, { class: "primary" }) : button("Next", () => open(at + 1), { class: "primary" }), button("Back", () => open(at - 1), { disabled: at === 0 }), ...(isLast ? [] : [button("Close", close)])),
    );
    $("tour").hidden = false;
  };
  $("open-tour").addEventListener("click", () => open(0));
  $("tour").addEventListener("keydown", (event) => event.key === "Escape" && (event.stopPropagation(), close()));
  if (!remembered.get("localStorage", STORED)) open(0);
}

export function showKeys($) {
  const rows = KEYS.map(([keys, what]) => make("div", {}, make("dt", {}, make("kbd", { text: keys })), make("dd", { text: what })));
  const close = make("button", { type: "button", text: "Close" });
  close.addEventListener("click", () => $("keys").close());
  $("keys").replaceChildren(make("h2", { id: "keys-title", text: "Keys" }), make("dl", {}, ...rows), close);
  $("keys").showModal();
}
