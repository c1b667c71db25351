// Page of a session: which branches it shows, beside which others, and what its buttons do.
import { BranchTree } from "./branch_tree.js";
import { BranchView, OWNERS } from "./branch_view.js";
import { ChangePanel } from "./change_panel.js";
import { LABELS, finder, make, remembered, setOptions } from "./dom.js";
import { Inspector } from "./inspector.js";
import { listenToKeys } from "./page_keys.js";
import { PromptForm } from "./prompt_form.js";
import { reading, ribbonLimits } from "./ribbon.js";
import { hears } from "./session_messages.js";
import { setUpTour, showKeys } from "./tour.js";

const KEPT = "safekey-explore-selected";
const VERDICTS = { full_refusal: "refuse", partial_refusal: "refuse in part", full_compliance: "comply" };
const GOES_ON = ["ready", "paused", "failed"];

// root: the document, or a shadow root with the page's elements. takesOver: whether it becomes the one that changes the session.
export function openPage(root, connection, { takesOver = false } = {}) {
  const page = new SessionPage(root, connection, takesOver);
  connection.listen((message) => hears[message.type]?.(page, message), () => page.trouble("The server does not answer; has the command ended? The page goes on when it is back."));
  return page;
}

class SessionPage {
  constructor(root, connection, takesOver) {
    const $ = finder(root);
    Object.assign(this, { root, $, connection, takesOver, views: new Map() });
    this.session = { models: [], readers: [], presets: [], branches: new Map(), isWriter: true };
    this.shown = { selected: null, compared: null, position: null, reader: null, range: [0, 1], awaited: null, controls: new Map() };
    this.inspector = new Inspector({ $, read: connection.read, onWeights: (id, weights) => this.views.get(id)?.text.shade(weights) });
    this.panel = new ChangePanel({ $, onFork: (body) => this.ask("fork", body).then((made) => made && this.select(made.branches[0])) });
    this.form = new PromptForm({ $, onSubmit: () => this.submit(), onExample: () => this.run() });
    this.tree = new BranchTree({
      $,
      onPick: (id) => this.select(id),
      onRename: (id, name) => this.ask("rename", { branch: id, name }),
      onDelete: (id) => this.ask("delete", { branch: id }),
      onCompare: (id) => ((this.shown.compared = this.shown.compared === id ? null : id), this.draw()),
      onSave: (id) => this.#save(`traces.jsonl?branch=${encodeURIComponent(id)}`, "traces.jsonl"),
    });
    $("role-said").textContent = connection.readOnly;
    const legend = OWNERS.filter(({ letter }) => letter).map(({ letter, text, tone }) => make("span", { class: "key" }, make("b", { class: `mark ${tone}`, text: letter }), ` ${text}`));
    $("legend").replaceChildren(...legend, make("span", { class: "key" }, make("span", { class: "open-mark" }), " provisional"), make("span", { class: "key" }, make("span", { class: "ramp" }), " attention of the chosen token"));
    this.press = listenToKeys(this);
    this.#listenToButtons();
    setUpTour($);
    this.resizes = new ResizeObserver(() => this.views.forEach((view) => view.drawRibbon()));
    this.resizes.observe($("columns"));
  }

  close() {
    this.resizes.disconnect();
  }

  #listenToButtons() {
    const { $ } = this;
    const acts = { stop: () => this.ask("cancel", {}), step: () => this.step(), replay: () => this.replay(), fit: () => this.#fit(), "open-keys": () => showKeys($), "take-over": () => this.ask("take_over", {}) };
    for (const [id, act] of Object.entries(acts)) $(id).addEventListener("click", act);
    $("reader").addEventListener("change", () => ((this.shown.reader = $("reader").value), this.draw()));
    $("code").addEventListener("toggle", () => this.#loadCode());
    for (const link of this.root.querySelectorAll("a[download]")) {
      link.addEventListener("click", (event) => (event.preventDefault(), this.#save(link.getAttribute("href"), link.download)));
    }
    $("skip").addEventListener("click", (event) => (event.preventDefault(), $("columns").focus()));
  }

  trouble(text) {
    this.$("trouble").textContent = text;
    this.$("trouble").hidden = !text;
  }

  // What an act gives, or null, with what went wrong said on the page.
  async attempt(act) {
    this.trouble("");
    try {
      return await act();
    } catch (error) {
      this.trouble(error.message);
      return null;
    }
  }

  ask(name, body) {
    return this.attempt(() => this.connection.change(name, body));
  }

  #save(path, name) {
    return this.attempt(() => this.connection.save(path, name));
  }

  get chosenBranch() {
    return this.session.branches.get(this.shown.selected);
  }

  // Which branches stand side by side: what the chosen one is compared with, itself, and its random control.
  columns() {
    const of = (id) => this.session.branches.get(id);
    let chosen = this.chosenBranch;
    if (!chosen) return [];
    if (chosen.control_of !== null && of(chosen.control_of)) chosen = of(chosen.control_of);
    const beside = of(this.shown.compared) ?? of(chosen.parent);
    const control = of(this.shown.controls.get(chosen.branch)) ?? of(chosen.control);
    return [beside, chosen, control].filter((branch, i, all) => branch && all.indexOf(branch) === i);
  }

  look() {
    const all = this.columns();
    const { readers, models } = this.session;
    const reader = readers.find(({ name }) => name === this.shown.reader) ?? readers[0] ?? null;
    const scores = reader ? all.flatMap(({ tokens }) => tokens.map(({ scores: each }) => each[reader.name]?.[0]).filter((value) => value !== undefined && value !== null)) : [];
    const limits = [...scores, ...(reader?.threshold === null || !reader ? [] : [reader.threshold])];
    const range = limits.length ? [Math.min(...limits), Math.max(...limits)] : [0, 1];
    const kl = all.slice(1).flatMap(({ difference }) => (difference?.isRead ? difference.tokens.kl : [])).filter((value) => value !== null);
    return {
      reader, range, models, chosen: this.shown.selected, beside: all[0]?.branch, controlsOf: (id) => this.controlsOf(id), n: Math.max(0, ...all.map(({ tokens }) => tokens.length)),
      limits: reader ? ribbonLimits(all, reader) : [-1, 1], top: Math.max(1e-6, ...kl),
    };
  }

  controlsOf(id) {
    return [...this.session.branches.values()].filter(({ control_of: of }) => of === id);
  }

  // Another control of the same change in the third column.
  #nextControl({ branch: id, control_of: of }) {
    const all = this.controlsOf(of);
    const at = all.findIndex(({ branch }) => branch === id);
    this.shown.controls.set(of, all[(at + 1) % all.length].branch);
    this.draw();
  }

  draw() {
    const { $, views } = this;
    const all = this.columns();
    const seen = this.look();
    this.shown.range = seen.range;
    for (const [id, view] of views) if (!all.some(({ branch }) => branch === id)) (view.body.remove(), views.delete(id));
    all.forEach((branch, i) => {
      if (!views.has(branch.branch)) views.set(branch.branch, new BranchView({ onToken: (id, position) => this.#chosen(id, position), onPick: (id) => this.select(id), onNext: (branch) => this.#nextControl(branch) }));
      const view = views.get(branch.branch);
      if ($("columns").children[i] !== view.body) $("columns").insertBefore(view.body, $("columns").children[i] ?? null);
      view.show(branch, seen);
    });
    $("columns").style.setProperty("--columns", all.length || 1);
    $("welcome").hidden = this.session.branches.size > 0;
    this.drawControls();
    this.#drawReading();
    this.drawTree();
    this.#drawChange();
    this.drawButtons();
    this.#compare();
  }

  // What the random controls of the change in sight do, all of them: what chance brings about, too, shows nothing.
  drawControls() {
    const chosen = this.chosenBranch;
    const branch = chosen && (this.session.branches.get(chosen.control_of) ?? chosen);
    const controls = branch ? this.controlsOf(branch.branch) : [];
    this.$("control-count").hidden = controls.length < 2;
    const counts = new Map();
    for (const { ended } of controls) {
      const what = ended ? VERDICTS[ended.label] ?? "without verdict" : "to come";
      counts.set(what, (counts.get(what) ?? 0) + 1);
    }
    const alike = branch?.ended?.label ? controls.filter(({ ended }) => ended?.label === branch.ended.label).length : 0;
    const before = branch && this.session.branches.get(branch.parent)?.ended?.label;
    const isDone = branch?.ended?.label && before !== branch.ended.label && controls.every(({ ended }) => ended);
    const p = isDone ? ` By chance: p = (1 + ${alike}) / (1 + ${controls.length}) = ${((1 + alike) / (1 + controls.length)).toFixed(2)}.` : "";
    const own = branch?.ended ? `“${branch.name}” ${LABELS[branch.ended.label] ?? "has no verdict"}. ` : "";
    const said = `${own}Of its ${controls.length} random controls: ${[...counts].sort().map(([what, n]) => `${n} ${what}`).join(", ")}.${p}`;
    this.$("control-count").textContent = controls.length < 2 ? "" : said;
  }

  // What bars and ribbons are.
  #drawReading() {
    const all = this.columns();
    const isCompared = all.slice(1).some(({ difference }) => difference?.isRead);
    this.$("reading").hidden = !all.length;
    this.$("reading").textContent = reading(this.look().reader) + (isCompared ? " Blue bars: KL divergence from the first column, nats." : "");
  }

  drawTree() {
    const { branches, isWriter, models } = this.session;
    const all = this.columns();
    const shown = [...branches.values()].filter(({ branch, control_of: of }) => of === null || branches.get(of)?.control === branch);
    this.tree.show(shown, { selected: this.shown.selected, compared: all.length > 1 ? all[0].branch : null, mayChange: isWriter, models });
  }

  #drawChange() {
    const { $, chosenBranch: branch } = this;
    $("change").hidden = !branch || !this.session.isWriter;
    $("code").hidden = !branch;
    if (!branch) $("inspector").hidden = true;
    else this.#showPanel(this.shown.position);
  }

  #showPanel(position) {
    const { branches, readers, isWriter } = this.session;
    if (isWriter && this.chosenBranch) this.panel.show(this.chosenBranch, position, { branches: [...branches.values()], readers, models: this.session.models });
  }

  drawButtons() {
    const { $, chosenBranch: branch } = this;
    const { branches, isWriter } = this.session;
    const isBusy = [...branches.values()].some(({ status }) => status === "running" || status === "waiting");
    $("stop").disabled = !isBusy || !isWriter;
    $("step").disabled = !isWriter || Boolean(branch && ![...GOES_ON, "ended"].includes(branch.status));
    $("replay").disabled = !branch?.tokens.length;
    $("run").disabled = !isWriter;
    $("role").hidden = isWriter;
  }

  drawReaders() {
    const { $ } = this;
    const { readers, presets } = this.session;
    $("reader-choice").hidden = readers.length < 2;
    setOptions($("reader"), readers.map(({ name }) => [name, name]), this.shown.reader ?? undefined);
    $("fit").hidden = readers.length > 0 || !presets.some(({ label }) => label);
  }

  #chosen(id, position) {
    this.shown.position = position;
    this.views.forEach((view, name) => {
      if (name !== id) view.text.shade(null);
      view.drawRibbon();
    });
    const branch = this.session.branches.get(id);
    this.inspector.show(branch, position, this.session.models[branch.model]);
    this.#showPanel(id === this.shown.selected ? position : null);
  }

  select(id, compared = null) {
    // The answer to a request may come before the event that tells of its branch.
    if (!this.session.branches.has(id)) return void (this.shown.awaited = [id, compared]);
    const isNew = id !== this.shown.selected;
    // What was read of a token of another branch leaves its place to the columns.
    if (isNew) this.#letGo();
    Object.assign(this.shown, { selected: id, compared, position: null });
    this.$("code").open = false;
    remembered.set("sessionStorage", KEPT, id);
    this.draw();
    if (!isNew) return;
    this.$(`branch-${id}`)?.scrollIntoView({ block: "nearest" });
    const { top } = this.$("columns").getBoundingClientRect();
    if (top < 0 || top > innerHeight * 0.7) this.$("columns").scrollIntoView({ block: "start" });
  }

  #letGo() {
    this.inspector.hide();
    this.views.forEach((view) => view.letGo());
  }

  // The whole session anew: the branch that was shown, if it is still there.
  showSession() {
    const { branches } = this.session;
    const last = [...branches.values()].filter(({ control_of: control }) => control === null).at(-1)?.branch ?? null;
    this.shown.selected = [this.shown.selected, remembered.get("sessionStorage", KEPT)].find((id) => branches.has(id)) ?? last;
    this.views.forEach((view) => view.body.remove());
    this.views.clear();
    this.trouble("");
    this.form.show(this.session);
    if (!this.form.prompt && this.chosenBranch) this.$("prompt").value = this.chosenBranch.prompt;
    this.drawReaders();
    this.draw();
    this.$("columns").closest("body").dataset.ready = "true";
  }

  // How the chosen branch differs from the one beside it, once both have something to compare.
  async #compare() {
    const [beside, ...others] = this.columns();
    if (!beside) return;
    for (const branch of others) {
      if (!branch.ended || !beside.ended) continue;
      const key = `${branch.branch},${beside.branch},${branch.tokens.length},${beside.tokens.length}`;
      if (branch.compared === key) continue;
      branch.compared = key;
      try {
        const difference = await this.connection.read("difference", { branch: branch.branch, other: beside.branch });
        const kl = difference.tokens.kl.filter((value) => value !== null);
        // Where model and edits are the same, every difference is 0: the text alone was changed.
        const isRead = kl.some((value) => value > 1e-6);
        const mean = kl.length ? kl.reduce((sum, value) => sum + value, 0) / kl.length : null;
        // A message may have brought the branch anew meanwhile.
        const now = this.session.branches.get(branch.branch);
        if (!now) continue;
        now.difference = { ...difference, kl: mean, isRead };
        const seen = this.look();
        this.views.get(branch.branch)?.show(now, seen);
        this.views.forEach((view) => ((view.look = seen), view.drawRibbon()));
        this.#drawReading();
      } catch (error) {
        this.trouble(error.message);
      }
    }
  }

  async run({ only = false } = {}) {
    const asked = this.form.asked();
    if (!asked.models.length) return this.trouble("models: none is chosen; choose one or more"), null;
    const made = await this.ask("start", { ...asked, run: !only });
    if (!made) return null;
    this.select(made.branches.at(-1), made.branches.length > 1 ? made.branches[0] : null);
    return made.branches;
  }

  async step() {
    const branch = this.chosenBranch;
    const ids = branch && GOES_ON.includes(branch.status) ? [branch.branch] : await this.run({ only: true });
    for (const id of ids ?? []) await this.ask("step", { branch: id });
  }

  async submit() {
    const branch = this.chosenBranch;
    // A branch that was stopped goes on when its prompt has not been changed since.
    const goesOn = branch && ["ready", "paused"].includes(branch.status) && branch.prompt === this.form.prompt;
    if (goesOn) await this.ask("run", { branch: branch.branch });
    else await this.run();
  }

  async replay() {
    const view = this.views.get(this.shown.selected);
    if (!view || view.isReplaying) return;
    view.isReplaying = true;
    for (let n = 0; n <= view.branch.tokens.length && this.views.get(view.branch.branch) === view; n += 1) {
      view.drawTokens(n);
      await new Promise((wake) => setTimeout(wake, 60));
    }
    view.isReplaying = false;
    view.drawTokens();
  }

  async #fit() {
    const button = this.$("fit");
    Object.assign(button, { disabled: true, textContent: "Fits a probe …" });
    await this.ask("fit", {});
    Object.assign(button, { disabled: false, textContent: "Fit a probe to the traces" });
  }

  async #loadCode() {
    if (!this.$("code").open) return;
    const shown = await this.connection.read("code", { branch: this.shown.selected }).catch((error) => ({ python: error.message, command: "" }));
    this.$("code-python").textContent = shown.python;
    this.$("code-command").textContent = shown.command;
  }
}
