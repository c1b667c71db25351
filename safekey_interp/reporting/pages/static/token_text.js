// Tokens as text: runs of one span, each with its mark; one active token, moved by keys and pointer; shades by weight.
// Every text is set with textContent. The pane is a listbox; an owner is what a token may belong to: letter, text, tone.
class TokenText {
  // Python has spelled out what is not seen and what turns its neighbours around.
  static visible = (text) => (text === "" ? "∅" : text);
  static spoken = (text) =>
    /^\s+$/.test(text) ? (text.includes("\n") ? "line break" : "space") : TokenText.visible(text).replace(/\n/g, "⏎");

  // onActive(at, isByHand) hears of each new active token; onDrawn(node, at) may add to a token's element.
  constructor(pane, owners, { onActive = () => {}, onDrawn = () => {}, followsPointer = false } = {}) {
    Object.assign(this, { pane, owners, onActive, onDrawn, nodes: [], owner: [], active: -1, run: null });
    const at = (event) => Number(event.target.closest(".token")?.dataset.at ?? -1);
    if (followsPointer) pane.addEventListener("pointerover", (event) => at(event) >= 0 && this.go(at(event), false));
    pane.addEventListener("click", (event) => at(event) >= 0 && this.go(at(event), true));
    pane.addEventListener("keydown", (event) => this.#key(event));
  }

  draw(tokens, owner) {
    this.clear();
    tokens.forEach((text, at) => this.append(text, owner[at]));
  }

  clear() {
    this.pane.replaceChildren();
    this.pane.removeAttribute("aria-activedescendant");
    Object.assign(this, { nodes: [], owner: [], active: -1, run: null });
  }

  append(text, mine) {
    const at = this.nodes.length;
    if (at === 0 || mine !== this.owner[at - 1]) this.run = this.#opened(this.owners[mine]);
    const node = document.createElement("span");
    node.className = "token";
    node.textContent = TokenText.visible(text).replace(/\n/g, "⏎\n");
    node.id = `${this.pane.id}-${at}`;
    node.dataset.at = at;
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", "false");
    node.setAttribute("aria-label", TokenText.spoken(text));
    this.nodes.push(node);
    this.owner.push(mine);
    this.onDrawn(node, at);
    this.run.append(node);
  }

  #opened({ letter, text, tone }) {
    const run = document.createElement("bdi");
    run.className = `run ${tone}`;
    run.dir = "auto";
    run.setAttribute("role", "group");
    run.setAttribute("aria-label", text);
    if (letter) {
      const mark = Object.assign(document.createElement("b"), { textContent: letter, className: `mark ${tone}` });
      mark.setAttribute("aria-hidden", "true");
      run.append(mark);
    }
    this.pane.append(run);
    return run;
  }

  // The strongest weight has the full colour; tokens past the weights cannot be seen from the row.
  shade(weights, isHidden = () => false) {
    const top = weights ? Math.max(1e-9, ...weights.filter((_, at) => !isHidden(at))) : 1;
    this.nodes.forEach((node, at) => {
      const share = weights && at < weights.length && !isHidden(at) ? Math.sqrt(weights[at] / top) : 0;
      node.style.setProperty("--a", share.toFixed(3));
      node.classList.toggle("unread", Boolean(weights) && at >= weights.length);
    });
  }

  go(at, isByHand) {
    const next = Math.min(Math.max(at, 0), this.nodes.length - 1);
    if (next === this.active || next < 0) return;
    this.mark(next);
    if (isByHand) this.nodes[next].scrollIntoView({ block: "nearest" });
    this.onActive(next, isByHand);
  }

  // Make a token the active one, and tell nobody.
  mark(at) {
    for (const [which, isActive] of [[this.active, false], [at, true]]) {
      this.nodes[which]?.classList.toggle("active", isActive);
      this.nodes[which]?.setAttribute("aria-selected", String(isActive));
    }
    this.active = at;
    this.pane.setAttribute("aria-activedescendant", this.nodes[at].id);
  }

  unmark() {
    this.nodes[this.active]?.classList.remove("active");
    this.nodes[this.active]?.setAttribute("aria-selected", "false");
    this.pane.removeAttribute("aria-activedescendant");
    this.active = -1;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      ArrowRight: () => this.active + 1,
      ArrowLeft: () => this.active - 1,
      ArrowDown: () => this.#vertical(1),
      ArrowUp: () => this.#vertical(-1),
      Home: () => 0,
      End: () => this.nodes.length - 1,
      PageDown: () => this.#jump(1),
      PageUp: () => this.#jump(-1),
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.go(moves[event.key](), true);
  }

  // The first token of the next span, or of this one or the one before it.
  #jump(step) {
    const { owner, active } = this;
    let at = active;
    if (step > 0) {
      while (at < owner.length - 1 && owner[at] === owner[active]) at += 1;
      return at;
    }
    while (at > 0 && owner[at - 1] === owner[active]) at -= 1;
    if (at < active || at === 0) return at;
    at -= 1;
    while (at > 0 && owner[at - 1] === owner[at]) at -= 1;
    return at;
  }

  // The token nearest in the line above or below, as the eye would go.
  #vertical(step) {
    const { nodes, active } = this;
    if (active < 0) return 0;
    const box = nodes[active].getBoundingClientRect();
    const middle = (box.left + box.right) / 2;
    let [best, distance, line] = [active, Infinity, null];
    for (let at = active + step; at >= 0 && at < nodes.length; at += step) {
      const there = nodes[at].getClientRects()[0];
      if (!there || (step > 0 ? there.top <= box.top + 4 : there.top >= box.top - 4)) continue;
      line = line ?? there.top;
      if (Math.abs(there.top - line) > 4) break;
      const off = Math.abs((there.left + there.right) / 2 - middle);
      if (off < distance) [best, distance] = [at, off];
    }
    return best;
  }
}
