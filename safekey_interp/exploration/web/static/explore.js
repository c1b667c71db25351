// Page of a session: what it knows of the branches, what it shows of them, and what the keys and buttons do.
import { BranchTree } from "./branch_tree.js";
import { BranchView, OWNERS } from "./branch_view.js";
import { ChangePanel } from "./change_panel.js";
import { change, listen, read } from "./connection.js";
import { $, LABELS, make, setOptions } from "./dom.js";
import { Inspector } from "./inspector.js";
import { reading } from "./ribbon.js";
import { setUpTour, showKeys } from "./tour.js";

const session = { models: [], readers: [], presets: [], branches: new Map(), isWriter: true };
const shown = { selected: null, compared: null, position: null, reader: null, range: [0, 1], awaited: null };
const views = new Map();
const KEPT = "safekey-explore-selected";

const inspector = new Inspector({ onWeights: (id, weights) => views.get(id)?.text.shade(weights) });
const panel = new ChangePanel({ onFork: (body) => ask("fork", body).then((made) => made && select(made.branches[0])) });
const tree = new BranchTree({
  onPick: (id) => select(id),
  onRename: (id, name) => ask("rename", { branch: id, name }),
  onDelete: (id) => ask("delete", { branch: id }),
  onCompare: (id) => ((shown.compared = shown.compared === id ? null : id), draw()),
});

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

async function ask(name, body) {
  trouble("");
  try {
    return await change(name, body);
  } catch (error) {
    trouble(error.message);
    return null;
  }
}

// Which branches stand side by side: what the chosen one is compared with, itself, and its random control.
function columns() {
  const of = (id) => session.branches.get(id);
  let chosen = of(shown.selected);
  if (!chosen) return [];
  if (chosen.control_of !== null && of(chosen.control_of)) chosen = of(chosen.control_of);
  const beside = of(shown.compared) ?? of(chosen.parent);
  return [beside, chosen, of(chosen.control)].filter((branch, i, all) => branch && all.indexOf(branch) === i);
}

function look() {
  const all = columns();
  const reader = session.readers.find(({ name }) => name === shown.reader) ?? session.readers[0] ?? null;
  const scores = reader ? all.flatMap(({ tokens }) => tokens.map(({ scores: each }) => each[reader.name]?.[0]).filter((value) => value !== undefined && value !== null)) : [];
  const limits = [...scores, ...(reader?.threshold === null || !reader ? [] : [reader.threshold])];
  const range = limits.length ? [Math.min(...limits), Math.max(...limits)] : [0, 1];
  return { reader, range, models: session.models, n: Math.max(0, ...all.map(({ tokens }) => tokens.length)) };
}

function draw() {
  const all = columns();
  const seen = look();
  shown.range = seen.range;
  for (const [id, view] of views) if (!all.some(({ branch }) => branch === id)) (view.body.remove(), views.delete(id));
  all.forEach((branch, i) => {
    if (!views.has(branch.branch)) views.set(branch.branch, new BranchView({ onToken: chosen, onPick: select }));
    const view = views.get(branch.branch);
    if ($("columns").children[i] !== view.body) $("columns").insertBefore(view.body, $("columns").children[i] ?? null);
    view.show(branch, seen);
  });
  $("columns").style.setProperty("--columns", all.length || 1);
  $("welcome").hidden = session.branches.size > 0;
  $("reading").hidden = !all.length;
  $("reading").textContent = reading(seen.reader) + (all.length > 1 ? " Blue bars: KL divergence from the first column, nats." : "");
  drawTree();
  drawChange();
  drawButtons();
  compare();
}

function drawTree() {
  tree.show([...session.branches.values()], { selected: shown.selected, compared: columns().length > 1 ? columns()[0].branch : null, mayChange: session.isWriter, models: session.models });
}

function drawChange() {
  const branch = session.branches.get(shown.selected);
  $("change").hidden = !branch || !session.isWriter;
  $("code").hidden = !branch;
  if (!branch) $("inspector").hidden = true;
  if (branch && session.isWriter) panel.show(branch, shown.position, { branches: [...session.branches.values()], readers: session.readers });
}

function drawButtons() {
  const branch = session.branches.get(shown.selected);
  const isBusy = [...session.branches.values()].some(({ status }) => status === "running" || status === "waiting");
  const mayGoOn = branch && ["ready", "paused", "failed"].includes(branch.status);
  $("stop").disabled = !isBusy || !session.isWriter;
  $("step").disabled = !session.isWriter || Boolean(branch && !mayGoOn && branch.status !== "ended");
  $("replay").disabled = !branch?.tokens.length;
  $("run").disabled = !session.isWriter;
  $("role").hidden = session.isWriter;
}

function chosen(id, position) {
  shown.position = position;
  views.forEach((view, name) => {
    if (name !== id) view.text.shade(null);
    view.drawRibbon();
  });
  const branch = session.branches.get(id);
  inspector.show(branch, position, session.models[branch.model]);
  const selected = session.branches.get(shown.selected);
  if (session.isWriter && selected) panel.show(selected, id === shown.selected ? position : null, { branches: [...session.branches.values()], readers: session.readers });
}

function select(id, compared = null) {
  // The answer to a request may come before the event that tells of its branch.
  if (!session.branches.has(id)) return void (shown.awaited = [id, compared]);
  shown.selected = id;
  shown.compared = compared;
  shown.position = null;
  $("code").open = false;
  sessionStorage.setItem(KEPT, id);
  draw();
}

// How the chosen branch differs from the one beside it, once both have something to compare.
async function compare() {
  const [beside, ...others] = columns();
  if (!beside) return;
  for (const branch of others) {
    if (!branch.ended || !beside.ended) continue;
    const key = `${branch.branch},${beside.branch},${branch.tokens.length},${beside.tokens.length}`;
    if (branch.compared === key) continue;
    branch.compared = key;
    try {
      const difference = await read("difference", { branch: branch.branch, other: beside.branch });
      const kl = difference.tokens.kl.filter((value) => value !== null);
      branch.difference = { ...difference, kl: kl.length ? kl.reduce((sum, value) => sum + value, 0) / kl.length : null };
      branch.firstDifference = difference.first_difference;
      views.get(branch.branch)?.show(branch, look());
    } catch (error) {
      trouble(error.message);
    }
  }
}

const hears = {
  session(message) {
    Object.assign(session, { models: message.models, readers: message.readers, presets: message.presets, isWriter: message.is_writer });
    session.branches = new Map(message.branches.map((branch) => [branch.branch, fresh(branch)]));
    const names = message.models.map(({ name, n_layers: layers, n_heads: heads }) => `${name}, ${layers} layers × ${heads} heads`).join("; ");
    $("about").textContent = [names, message.folder ? `kept in ${message.folder}` : "not kept on disk"].join(" · ");
    trouble("");
    setUpModels();
    setUpPresets();
    setUpReaders();
    const kept = sessionStorage.getItem(KEPT);
    const last = [...session.branches.values()].filter(({ control_of: control }) => control === null).at(-1)?.branch ?? null;
    shown.selected = session.branches.has(shown.selected) ? shown.selected : session.branches.has(kept) ? kept : last;
    views.forEach((view) => view.body.remove());
    views.clear();
    draw();
    document.body.dataset.ready = "true";
  },
  role: ({ is_writer: isWriter }) => ((session.isWriter = isWriter), draw()),
  readers: ({ readers }) => ((session.readers = readers), setUpReaders(), draw()),
  branch(message) {
    const before = session.branches.get(message.branch);
    session.branches.set(message.branch, Object.assign(fresh(message), before && { difference: before.difference, firstDifference: before.firstDifference, compared: before.compared }));
    const [awaited, compared] = shown.awaited ?? [];
    if (awaited === message.branch) (shown.awaited = null), select(awaited, compared);
    else if (shown.selected === null) select(message.branch);
    else draw();
  },
  running({ branch: id }) {
    const branch = session.branches.get(id);
    if (!branch) return;
    Object.assign(branch, { status: "running", failed: null });
    views.get(id)?.drawHead();
    drawTree();
    drawButtons();
  },
  token({ branch: id, token }) {
    const branch = session.branches.get(id);
    if (!branch || token.index < branch.tokens.length) return;
    branch.tokens.push(token);
    const view = views.get(id);
    if (!view || view.isReplaying) return;
    const seen = look();
    if (seen.range[0] !== shown.range[0] || seen.range[1] !== shown.range[1]) {
      shown.range = seen.range;
      views.forEach((each) => each.rescale(seen));
    }
    view.look = seen;
    view.add(token);
  },
  spans({ branch: id, spans }) {
    const branch = session.branches.get(id);
    if (!branch) return;
    branch.spans = spans;
    if (!views.get(id)?.isReplaying) views.get(id)?.drawTokens();
  },
  ended(message) {
    const branch = session.branches.get(message.branch);
    if (branch) Object.assign(branch, { status: "ended", ended: message });
  },
  failed(message) {
    const branch = session.branches.get(message.branch);
    if (branch) Object.assign(branch, { status: "failed", failed: message.message });
    trouble(message.message);
  },
  deleted({ branches }) {
    branches.forEach((id) => session.branches.delete(id));
    if (!session.branches.has(shown.selected)) shown.selected = [...session.branches.keys()].at(-1) ?? null;
    if (!session.branches.has(shown.compared)) shown.compared = null;
    draw();
  },
};

const fresh = (branch) => ({ difference: null, firstDifference: null, ...branch });

function setUpModels() {
  $("models").hidden = session.models.length < 2;
  $("models").replaceChildren(
    make("legend", { class: "unseen", text: "Models" }),
    ...session.models.map(({ name }, i) => make("label", { class: "tick" }, make("input", { type: "checkbox", value: i, checked: true, autocomplete: "off" }), make("span", { text: name }))),
  );
}

function setUpPresets() {
  const short = (text) => (text.length > 70 ? `${text.slice(0, 70)}…` : text).replace(/\s+/g, " ");
  const kind = ({ label, outcome }) => [label, outcome && `the trace ${LABELS[outcome]}`].filter(Boolean).join(", ");
  setOptions($("preset"), [["", session.presets.length ? "choose a prompt" : "no traces given"], ...session.presets.map((preset, i) => [String(i), [kind(preset), short(preset.prompt)].filter(Boolean).join(" · ")])], "");
  // One of each kind: the harmful prompt that was answered first, since something can be woken there.
  const wanted = [["harmful", "full_compliance"], ["harmful", "full_refusal"], ["benign", "full_compliance"]];
  const found = wanted.map(([label, outcome]) => session.presets.find((preset) => preset.label === label && preset.outcome === outcome));
  const offered = found.some(Boolean) ? found.filter(Boolean) : session.presets.slice(0, 3);
  $("examples").replaceChildren(
    ...offered.map((preset) => {
      const button = make("button", { type: "button" }, make("bdi", { text: short(preset.prompt) }), make("span", { class: "muted", text: kind(preset) }));
      button.addEventListener("click", () => (fill(preset), run()));
      return button;
    }),
  );
}

function setUpReaders() {
  $("reader-choice").hidden = session.readers.length < 2;
  setOptions($("reader"), session.readers.map(({ name }) => [name, name]), shown.reader ?? undefined);
  $("fit").hidden = session.readers.length > 0 || !session.presets.some(({ label }) => label);
}

function fill({ prompt, turns }) {
  $("prompt").value = prompt;
  $("system").value = turns.filter(({ role }) => role === "system").map(({ content }) => content).join("\n");
  $("turns").replaceChildren();
  const earlier = turns.filter(({ role }) => role !== "system");
  earlier.forEach(({ role, content }) => addTurn(role, content));
  $("context").open = turns.length > 0;
}

function addTurn(role = "user", content = "") {
  const box = make("select", { "aria-label": "Who says it", autocomplete: "off" }, make("option", { value: "user", text: "user" }), make("option", { value: "assistant", text: "assistant" }));
  box.value = role;
  const text = make("textarea", { rows: "2", "aria-label": "Earlier turn", autocomplete: "off", spellcheck: "false" });
  text.value = content;
  const remove = make("button", { type: "button", class: "small", text: "Remove" });
  const row = make("div", { class: "turn" }, box, text, remove);
  remove.addEventListener("click", () => row.remove());
  $("turns").append(row);
  return text;
}

async function run({ only = false } = {}) {
  const models = session.models.length > 1 ? [...$("models").querySelectorAll("input:checked")].map(({ value }) => Number(value)) : [0];
  if (!models.length) return trouble("models: none is chosen; choose one or more"), null;
  const made = await ask("start", {
    prompt: $("prompt").value,
    system: $("system").value || null,
    turns: [...$("turns").children].map((row) => ({ role: row.children[0].value, content: row.children[1].value })),
    models, seed: Number($("seed").value), temperature: Number($("temperature").value), max_new_tokens: Number($("longest").value), run: !only,
  });
  if (!made) return null;
  select(made.branches.at(-1), made.branches.length > 1 ? made.branches[0] : null);
  return made.branches;
}

async function step() {
  const branch = session.branches.get(shown.selected);
  const goesOn = branch && ["ready", "paused", "failed"].includes(branch.status);
  const ids = goesOn ? [branch.branch] : await run({ only: true });
  for (const id of ids ?? []) await ask("step", { branch: id });
}

async function submit() {
  const branch = session.branches.get(shown.selected);
  // A branch that was stopped goes on when its prompt has not been changed since.
  const goesOn = branch && ["ready", "paused"].includes(branch.status) && branch.prompt === $("prompt").value;
  if (goesOn) await ask("run", { branch: branch.branch });
  else await run();
}

async function replay() {
  const view = views.get(shown.selected);
  if (!view || view.isReplaying) return;
  view.isReplaying = true;
  for (let n = 0; n <= view.branch.tokens.length && views.get(view.branch.branch) === view; n += 1) {
    view.drawTokens(n);
    await new Promise((wake) => setTimeout(wake, 60));
  }
  view.isReplaying = false;
  view.drawTokens();
}

async function loadCode() {
  if (!$("code").open) return;
  try {
    const { python, command } = await read("code", { branch: shown.selected });
    $("code-python").textContent = python;
    $("code-command").textContent = command;
  } catch (error) {
    $("code-python").textContent = error.message;
    $("code-command").textContent = "";
  }
}

const focusTokens = () => views.get(shown.selected)?.pane.focus();
const KEYS = {
  s: () => $("step").click(),
  r: () => $("replay").click(),
  p: () => $("prompt").focus(),
  t: focusTokens,
  k: () => {
    const view = views.get(shown.selected);
    const key = view?.branch.spans.key_sentence;
    focusTokens();
    if (key) view.choose(key[0]);
  },
  g: () => document.querySelector("#grid td[tabindex='0']")?.focus(),
  c: () => $("change").querySelector("[role=tab][aria-selected=true]").focus(),
  b: () => $("branches").focus(),
  "?": showKeys,
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return event.preventDefault(), void submit();
  if (event.key === "Escape" && !$("stop").disabled && !$("keys").open) return void $("stop").click();
  const isTyping = event.target.closest("input, textarea, select, dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});
$("ask").addEventListener("submit", (event) => (event.preventDefault(), submit()));
$("stop").addEventListener("click", () => ask("cancel", {}));
$("step").addEventListener("click", step);
$("replay").addEventListener("click", replay);
$("add-turn").addEventListener("click", () => addTurn().focus());
$("preset").addEventListener("change", () => $("preset").value && fill(session.presets[Number($("preset").value)]));
$("reader").addEventListener("change", () => ((shown.reader = $("reader").value), draw()));
$("fit").addEventListener("click", async () => {
  $("fit").disabled = true;
  $("fit").textContent = "Fits a probe …";
  await ask("fit", {});
  Object.assign($("fit"), { disabled: false, textContent: "Fit a probe to the traces" });
});
$("code").addEventListener("toggle", loadCode);
$("open-keys").addEventListener("click", showKeys);
new ResizeObserver(() => views.forEach((view) => view.drawRibbon())).observe($("columns"));
window.addEventListener("error", ({ message }) => trouble(message));
window.addEventListener("unhandledrejection", ({ reason }) => trouble(reason?.message ?? String(reason)));

$("legend").replaceChildren(
  ...OWNERS.filter(({ letter }) => letter).map(({ letter, text, tone }) => make("span", { class: "key" }, make("b", { class: `mark ${tone}`, text: letter }), ` ${text}`)),
  make("span", { class: "key" }, make("span", { class: "open-mark" }), " provisional"),
  make("span", { class: "key" }, make("span", { class: "ramp" }), " attention of the chosen token"),
);
setUpTour();
listen((message) => hears[message.type]?.(message), () => trouble("The server does not answer; has the command ended? The page goes on when it is back."));
