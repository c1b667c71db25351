// What one token does: its attention by layer and head, where one head looks, what heads write, and the logit lens.
import { make, number, percent, signed } from "./dom.js";
import { diverging, heatGrid, sequential } from "./heat_grid.js";

const SPANS = [["prompt", "X, the prompt"], ["understanding", "U, the understanding"], ["key_sentence", "K, the key sentence"], ["template", "the template"], ["first_token", "the first token"]];
const MEASURES = { mass: "mass", lift: "lift", matched_mass: "distance-matched mass" };

export class Inspector {
  // read(name, asked) asks for a reading; onWeights(branch id, weights) shades the text.
  constructor({ $, read, onWeights }) {
    Object.assign(this, { $, read, onWeights, branch: null, position: null, head: null, tables: {}, asked: 0 });
    this.$("grid-span").replaceChildren(...SPANS.map(([value, text]) => make("option", { value, text })));
    this.$("grid-span").value = "understanding";
    for (const box of ["grid-span", "grid-measure"]) this.$(box).addEventListener("change", () => this.drawGrid());
  }

  show(branch, position, model) {
    const isSame = branch === this.branch && position === this.position;
    Object.assign(this, { branch, position, model });
    this.$("inspector").hidden = false;
    this.drawDetail();
    if (isSame) return;
    clearTimeout(this.timer);
    // Not for each token that the keys pass over.
    this.timer = setTimeout(() => this.load(), 80);
  }

  hide() {
    clearTimeout(this.timer);
    this.asked += 1;
    this.branch = null;
    this.$("inspector").hidden = true;
  }

  async load() {
    const ticket = (this.asked += 1);
    const asked = { branch: this.branch.branch, position: this.position };
    const part = async (name, drawn, more = {}) => {
      try {
        const table = await this.read(name, { ...asked, ...more });
        if (ticket !== this.asked) return;
        this.tables[name] = table;
        drawn(table);
      } catch (error) {
        if (ticket === this.asked) this.#lacks(name, error.message);
      }
    };
    await Promise.all([part("attention", () => this.drawGrid()), this.loadWeights(ticket)]);
    await Promise.all([part("writes", () => this.drawWrites()), part("lens", () => this.drawLens())]);
  }

  async loadWeights(ticket = (this.asked += 1)) {
    const where = this.head === null ? {} : { layer: this.head[0], head: this.head[1] };
    try {
      const { weight } = await this.read("weights", { branch: this.branch.branch, position: this.position, ...where });
      if (ticket === this.asked) this.onWeights(this.branch.branch, weight);
    } catch {
      if (ticket === this.asked) this.onWeights(this.branch.branch, null);
    }
  }

  #lacks(name, message) {
    const box = { attention: "grid", writes: "writes", lens: "lens" }[name];
    this.$(box).replaceChildren(make("p", { class: "muted", text: message }));
    if (name === "attention") this.$("grid-said").textContent = "";
    if (name === "writes") this.$("writes-said").textContent = "";
  }

  drawDetail() {
    const { branch, position } = this;
    const start = branch.prompt_tokens.length;
    const token = branch.tokens[position - start];
    const text = token ? token.text : branch.prompt_tokens[position];
    if (text === undefined) return;
    const lines = [token ? `token ${token.index + 1} of the response, position ${position}` : `token of the prompt, position ${position}`];
    if (token && token.logprob !== null) lines.push(`probability ${percent(Math.exp(token.logprob))}${token.is_given ? ", given" : ""}`);
    const scores = token ? Object.entries(token.scores) : [];
    this.$("token-detail").replaceChildren(
      make("p", { class: "detail-token" }, make("bdi", { text: TokenText.spoken(text).replace(/ /g, "·") })),
      make("p", { class: "muted", text: lines.join(" · ") }),
      ...scores.map(([name, [value, mean, sd, isAbove]]) => {
        const isRead = (branch.spans.read_at?.[name] ?? []).includes(position);
        const control = mean === null ? "" : ` (random vectors ${number(mean)} ± ${number(1.96 * sd)})`;
        return make("p", { text: `${name}: ${number(value)}${control}${isRead ? (isAbove ? ", above the alarm line" : ", below the alarm line") : ""}` });
      }),
    );
  }

  drawGrid() {
    const table = this.tables.attention;
    if (!table) return;
    const [span, measure] = [this.$("grid-span").value, this.$("grid-measure").value];
    const values = new Map();
    table.to_span.forEach((name, i) => name === span && values.set(`${table.layer[i]},${table.head[i]}`, table[measure][i]));
    const known = [...values.values()].filter((value) => value !== null);
    const top = Math.max(...known, 1e-9);
    const isLift = measure === "lift";
    const shade = isLift ? (value) => diverging(Math.log2(Math.max(value, 1e-3)) / 3) : sequential(top);
    const shown = (value) => (value === null ? "not read" : isLift ? `lift ${number(value)}` : percent(value));
    heatGrid(this.$("grid"), {
      nLayers: this.model.n_layers, nHeads: this.model.n_heads, values, shade, chosen: this.head, testid: "grid",
      label: `${MEASURES[measure]} of the chosen token on ${span}, layers by heads`,
      say: (layer, head, value) => `layer ${layer}, head ${head}: ${shown(value)}`,
      onPick: (layer, head) => {
        this.head = this.head && this.head[0] === layer && this.head[1] === head ? null : [layer, head];
        this.drawGrid();
        this.loadWeights();
      },
    });
    const best = [...values].filter(([, value]) => value !== null).sort((a, b) => b[1] - a[1])[0];
    const text = known.length ? `Most: ${best[0].replace(",", ".")}, ${shown(best[1])}.` : "This token cannot see that span.";
    const where = this.head ? `The text is shaded by layer ${this.head[0]}, head ${this.head[1]}.` : "The text is shaded by the mean over heads; choose a cell for one.";
    this.$("grid-said").textContent = `${text} ${where}`;
  }

  drawWrites() {
    const { layer, head, effect, control_mean: mean, control_sd: sd } = this.tables.writes;
    const values = new Map(effect.map((value, i) => [`${layer[i]},${head[i]}`, value]));
    const top = Math.max(...effect.map((value) => Math.abs(value ?? 0)), 1e-9);
    heatGrid(this.$("writes"), {
      nLayers: this.model.n_layers, nHeads: this.model.n_heads, values, testid: "writes",
      label: "What each head writes towards compliance minus refusal, layers by heads",
      shade: (value) => diverging(-value / top),
      say: (l, h, value) => `layer ${l}, head ${h}: ${number(Math.abs(value))} logits towards ${value > 0 ? "compliance" : "refusal"}`,
    });
    const ranked = effect.map((value, i) => [value, i]).filter(([value]) => value !== null).sort((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
    const [value, i] = ranked[0] ?? [null, 0];
    const control = value === null || mean[i] === null ? "" : `; random token pairs ${signed(mean[i])} ± ${number(1.96 * sd[i])}`;
    this.$("writes-said").textContent = value === null ? "" : `Blue: refusal, orange: compliance. Largest: head ${layer[i]}.${head[i]}, ${number(Math.abs(value))} logits towards ${value > 0 ? "compliance" : "refusal"}${control}.`;
  }

  drawLens() {
    const { layer, rank, token, logprob, written_logprob: written } = this.tables.lens;
    const rows = new Map();
    layer.forEach((l, i) => rows.set(l, [...(rows.get(l) ?? []), i]));
    const body = make("tbody");
    [...rows.entries()].sort((a, b) => b[0] - a[0]).forEach(([l, found]) => {
      const tokens = found.sort((a, b) => rank[a] - rank[b]).slice(0, 3);
      const cells = tokens.map((i) => {
        const cell = make("td", {}, make("bdi", { class: "lens-token", text: TokenText.spoken(token[i]).trim() || "space" }));
        cell.title = `${token[i]}: ${percent(Math.exp(logprob[i]))}`;
        cell.style.setProperty("--p", Math.exp(logprob[i]).toFixed(3));
        return cell;
      });
      body.append(make("tr", {}, make("th", { scope: "row", text: l }), ...cells, make("td", { class: "muted", text: written[tokens[0]] === null ? "–" : percent(Math.exp(written[tokens[0]])) })));
    });
    const head = make("tr", {}, ...["Layer", "Likeliest", "", "", "Written"].map((text) => make("th", { scope: "col", text })));
    this.$("lens").replaceChildren(make("table", { class: "lens" }, make("thead", {}, head), body));
  }
}
