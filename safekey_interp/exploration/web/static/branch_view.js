// One branch as a column: what it is, its tokens by span, and the ribbon of scores under them.
import { LABELS, make, number, signed } from "./dom.js";
import { klStrip, nearOf, ribbon, signalOf } from "./ribbon.js";

export const OWNERS = [
  { name: "template", letter: "", text: "template", tone: "template" },
  { name: "prompt", letter: "X", text: "prompt", tone: "prompt" },
  { name: "understanding", letter: "U", text: "understanding", tone: "understanding" },
  { name: "key_sentence", letter: "K", text: "key sentence", tone: "key-sentence" },
  { name: "response", letter: "", text: "other response", tone: "response" },
];
const [TEMPLATE, PROMPT, UNDERSTANDING, KEY, RESPONSE] = OWNERS.keys();
const STATUS = { ready: "not begun", waiting: "waits", running: "writes", paused: "stopped", ended: "", failed: "failed" };
const REASONS = { end_of_turn: "ended its turn", limit: "cut at the number of new tokens", context_full: "cut: the context is full" };
const inside = (span, position) => span !== null && position >= span[0] && position < span[1];

export class BranchView {
  // onToken(branch id, position) hears of the chosen token; onPick(branch id) of a click on the heading.
  // onNext(branch) of a click on the button that shows another control of the same change.
  constructor({ onToken, onPick, onNext }) {
    this.body = make("article", { class: "branch" });
    this.title = make("button", { type: "button", class: "title" });
    this.next = make("button", { type: "button", class: "small next-control", text: "Next control" });
    this.next.addEventListener("click", () => onNext(this.branch));
    this.title.addEventListener("click", () => onPick(this.branch.branch));
    this.facts = make("p", { class: "facts-line muted" });
    this.verdict = make("p", { class: "verdict" });
    this.pane = make("div", { class: "tokens", role: "listbox", "aria-orientation": "horizontal", tabindex: "0" });
    this.figure = make("figure", { class: "ribbon", "data-testid": "ribbon" });
    this.body.append(make("header", {}, this.next, make("h2", {}, this.title), this.facts, this.verdict), this.pane, this.figure);
    this.figure.addEventListener("click", (event) => {
      const index = this.figure.querySelector("svg")?.indexAt(event.clientX);
      if (index !== undefined) this.choose(Math.min(Math.max(index, 0), this.branch.tokens.length - 1) + this.start);
    });
    this.onToken = onToken;
  }

  get start() {
    return this.branch.prompt_tokens.length;
  }

  // The whole column anew, for a branch and what the page shows of it.
  show(branch, look) {
    Object.assign(this, { branch, look });
    const { body, pane } = this;
    body.dataset.branch = branch.branch;
    body.dataset.testid = branch.control_of === null ? "branch" : "control";
    body.classList.toggle("is-control", branch.control_of !== null);
    body.classList.toggle("is-chosen", look.chosen === branch.branch);
    const isNew = pane.id !== `tokens-${branch.branch}`;
    if (isNew) {
      pane.id = `tokens-${branch.branch}`;
      const fresh = pane.cloneNode(false);
      pane.replaceWith(fresh);
      this.pane = fresh;
      this.text = new TokenText(fresh, OWNERS, {
        onActive: (position) => this.onToken(this.branch.branch, position),
        onDrawn: (node, position) => this.#drawn(node, position),
      });
    }
    this.pane.setAttribute("aria-label", `Tokens of ${branch.name}`);
    this.drawTokens();
    this.drawHead();
    if (isNew) this.#scrollToStart();
  }

  // A response that is written is followed; of one that has ended the prompt comes first, and not what a template says before.
  #scrollToStart() {
    const prompt = this.pane.querySelector(".run.prompt");
    this.pane.scrollTop = this.branch.ended ? (prompt?.offsetTop ?? 0) - 10 : this.pane.scrollHeight;
  }

  drawTokens(upTo = Infinity) {
    const { prompt_tokens: before, tokens } = this.branch;
    const { active } = this.text;
    const [scrolled, isAtEnd] = [this.pane.scrollTop, this.#isAtEnd];
    const shown = [...before, ...tokens.slice(0, upTo).map(({ text }) => text)];
    this.text.draw(shown, shown.map((_, position) => this.#owner(position)));
    if (active >= 0 && active < shown.length) this.text.mark(active);
    this.pane.scrollTop = isAtEnd ? this.pane.scrollHeight : scrolled;
    this.#markRuns();
    this.drawRibbon();
  }

  get #isAtEnd() {
    return this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight < 40;
  }

  // One more token, at the end.
  add(token) {
    const isAtEnd = this.#isAtEnd;
    this.text.append(token.text, this.#owner(token.position));
    this.#markRuns();
    if (isAtEnd) this.pane.scrollTop = this.pane.scrollHeight;
    this.drawRibbon();
  }

  #owner(position) {
    const { prompt_span: prompt, spans } = this.branch;
    if (position < this.start) return inside(prompt, position) ? PROMPT : TEMPLATE;
    if (inside(spans.understanding, position)) return UNDERSTANDING;
    return inside(spans.key_sentence, position) ? KEY : RESPONSE;
  }

  #drawn(node, position) {
    node.dataset.testid = "token";
    node.dataset.index = position;
    node.dataset.span = OWNERS[this.#owner(position)].name;
    const token = this.branch.tokens[position - this.start];
    if (!token) return;
    if (token.is_given) node.classList.add("given");
    if (this.difference?.first_difference === token.index) node.classList.add("differs");
    this.#score(node, token);
  }

  // A bar under the token: the score between the lowest and the highest of the page.
  #score(node, token) {
    const { reader, range } = this.look;
    const score = reader && token.scores[reader.name];
    if (!score || score[0] === null) return;
    node.style.setProperty("--score", ((score[0] - range[0]) / (range[1] - range[0] || 1)).toFixed(3));
    node.classList.add("scored");
    const isRead = (this.branch.spans.read_at?.[reader.name] ?? []).includes(token.position);
    node.classList.toggle("read", isRead);
    node.classList.toggle("above", isRead && reader.threshold !== null && score[0] > reader.threshold);
  }

  rescale(look) {
    this.look = look;
    this.branch.tokens.forEach((token) => {
      const node = this.text.nodes[token.position];
      if (node) this.#score(node, token);
    });
    this.drawRibbon();
  }

  #markRuns() {
    const isOpen = this.branch.spans.is_provisional && this.branch.ended === null;
    this.pane.querySelectorAll(".run.understanding, .run.key-sentence").forEach((run) => {
      run.classList.toggle("provisional", isOpen);
      run.title = isOpen ? "provisional: text to come may move it" : "";
    });
  }

  drawHead() {
    const { branch } = this;
    this.title.textContent = branch.name;
    this.next.hidden = branch.control_of === null || this.look.controlsOf(branch.control_of).length < 2;
    const { models } = this.look;
    const said = [
      branch.change === branch.name ? "" : branch.change,
      models.length > 1 ? models[branch.model].name : "",
      branch.temperature > 0 ? `temperature ${branch.temperature}, seed ${branch.seed}` : "",
      STATUS[branch.status],
      branch.ended && branch.ended.reason !== "end_of_turn" ? REASONS[branch.ended.reason] : "",
      branch.tokens.length ? `${branch.tokens.length} tokens` : "",
      branch.unknown > 0.05 ? `${Math.round(100 * branch.unknown)} % of the prompt’s tokens are unknown to this model, which reads another text than yours` : "",
    ];
    this.facts.textContent = said.filter(Boolean).join(" · ");
    this.verdict.replaceChildren();
    const chip = (text, kind, title = "") => this.verdict.append(make("span", { class: `chip ${kind}`, text, title }), " ");
    const label = branch.ended?.label;
    if (branch.failed) chip(branch.failed, "bad");
    if (label) chip(LABELS[label] ?? label, label, `refusal judge: ${branch.ended.label_reason}`);
    else if (branch.ended) chip(`no verdict: ${branch.ended.label_reason || "the refusal judge cannot tell"}`, "");
    this.#drawSignal(chip);
    const { difference } = this;
    if (difference) {
      const at = difference.first_difference;
      chip(at === null ? "no token differs" : `differs from token ${at + 1}`, "");
      if (difference.isRead && difference.logprob_difference !== null) chip(`log-probability ${signed(difference.logprob_difference)} nats per token`, "", "of this response from there on: by this branch, minus by the branch in the first column");
      if (difference.isRead && difference.kl !== null) chip(`KL ${number(difference.kl)} nats per token`, "", "mean divergence of its next-token distributions from those of the branch in the first column");
    }
    if (branch.no_control) chip(`no control: ${branch.no_control}`, "");
    this.body.setAttribute("aria-busy", String(branch.status === "running"));
  }

  // What the reader says at the tokens that it reads: the signal that a response may have although it complies.
  #drawSignal(chip) {
    const { reader } = this.look;
    const found = reader && this.branch.ended && signalOf(this.branch, reader);
    if (!found) return;
    const { value, band, isSignal } = found;
    const against = [
      isSignal === null ? "" : `alarm line ${number(reader.threshold, 1)}`,
      band.length ? `random ${number(band[0], 1)} to ${number(band[1], 1)}` : "",
      this.branch.is_steered ? "includes what steering added" : "",
    ];
    const what = isSignal === null ? "score" : isSignal ? "signal" : "no signal";
    chip(`${what} ${nearOf(reader)}: ${number(value, 1)} (${against.filter(Boolean).join("; ")})`, isSignal ? "signal" : "", `score of ${reader.name}`);
  }

  // How it differs from the branch in the first column, as far as that is known.
  get difference() {
    const { difference } = this.branch;
    return difference?.other === this.look.beside ? difference : null;
  }

  drawRibbon() {
    const { reader, n, limits, top } = this.look;
    const width = Math.max(240, Math.floor(this.body.clientWidth - 2));
    const { tokens, spans } = this.branch;
    const { difference } = this;
    const active = this.text.active >= 0 ? this.text.active : null;
    const drawn = reader ? [ribbon(tokens, { reader, spans, start: this.start, n, width, active, limits })] : [];
    if (difference?.isRead) drawn.push(klStrip(difference.tokens.kl, { n, width, top }));
    this.figure.hidden = !drawn.length;
    this.figure.replaceChildren(...drawn);
  }

  // No token is chosen any more.
  letGo() {
    this.text.shade(null);
    this.text.unmark();
    this.drawRibbon();
  }

  choose(position) {
    this.text.go(position, true);
  }
}
