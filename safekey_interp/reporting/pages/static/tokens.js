// The token view of a report: examples as TokenText, lit by attention. Every text is set with textContent.
(() => {
  const view = document.getElementById("tokens-view");
  if (!view) return;
  const book = JSON.parse(document.getElementById("examples-data").textContent);
  const $ = (id) => document.getElementById(id);
  const pane = $("tokens");
  const { kinds, facts: told } = book.words;
  // Classes of the style sheet, by the numbers that Python gives to tones.
  const TONES = ["first-token", "template", "prompt", "understanding", "key-sentence", "response"];
  const owners = book.words.owners.map((owner) => ({ ...owner, tone: TONES[owner.tone] }));
  const planes = new Map(book.planes.map(([kind, layer, head], i) => [`${kind},${layer},${head}`, i]));
  const unpacked = new Map();
  let record;
  let weights = null;

  const make = (name, text, className) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const percent = (value) => (value >= 0.0995 ? `${(100 * value).toFixed(0)} %` : value >= 0.00095 ? `${(100 * value).toFixed(1)} %` : value > 0 ? "< 0.1 %" : "0 %");
  const trouble = (text) => {
    $("token-trouble").textContent = text;
    $("token-trouble").hidden = !text;
  };

  async function unpack(key) {
    if (!unpacked.has(key)) {
      const bytes = Uint8Array.from(atob(book.maps[key]), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      unpacked.set(key, new Uint8Array(await new Response(stream).arrayBuffer()));
    }
    return unpacked.get(key);
  }

  // Which span each token belongs to, an index of owners; Python has said where it changes.
  function ownersOf({ tokens, runs }) {
    const found = Array(tokens.length);
    runs.forEach(([start, mine], i) => found.fill(mine, start, i + 1 < runs.length ? runs[i + 1][0] : tokens.length));
    return found;
  }

  function drawTokens() {
    text.draw(record.tokens, ownersOf(record));
    pane.setAttribute("aria-label", `Tokens of example ${record.id}`);
    pane.scrollTop = 0;
    const legend = $("token-legend");
    legend.replaceChildren();
    [...new Set(text.owner)].forEach((mine) => {
      const { letter, text: name, tone } = owners[mine];
      const item = make("span", undefined, "key");
      item.append(make("b", letter || "–", `mark ${tone}`), ` ${name}`);
      legend.append(item);
    });
    const ramp = make("span", undefined, "key");
    ramp.append(make("span", "", "ramp"), " less to more attention");
    legend.append(ramp);
  }

  function drawFacts() {
    const facts = record.facts;
    const rows = [
      ["Trace", record.id],
      ...told.map(({ name, label, values }) => [label, values ? values[String(facts[name])] : facts[name]]),
    ];
    $("example-facts").replaceChildren(
      ...rows
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => {
          const item = make("div");
          const dd = make("dd");
          dd.append(make("bdi", String(value)));
          item.append(make("dt", name), dd);
          return item;
        }),
    );
  }

  function setOptions(box, options, wanted) {
    const before = wanted ?? box.value;
    box.replaceChildren(...options.map(([value, text]) => Object.assign(make("option", text), { value })));
    box.value = options.some(([value]) => value === before) ? before : options.length ? options[0][0] : "";
  }
  function setLayers(wanted) {
    const layers = [...new Set(book.planes.filter(([kind]) => kind === $("kind").value).map(([, layer]) => layer))].sort((a, b) => a - b);
    setOptions($("layer"), layers.map((layer) => [String(layer), String(layer)]), wanted);
  }
  function setHeads(wanted) {
    const heads = book.planes.filter(([kind, layer]) => kind === $("kind").value && String(layer) === $("layer").value).map(([, , head]) => head);
    setOptions($("head"), heads.sort((a, b) => a - b).map((head) => [String(head), head < 0 ? "mean over heads" : `head ${head}`]), wanted);
  }

  const hides = (at) => at === 0 && $("hide-first").checked;
  async function light(note = "") {
    const mine = record;
    weights = null;
    const plane = planes.get(`${$("kind").value},${$("layer").value},${$("head").value}`);
    if (plane === undefined || !book.maps[mine.map]) {
      trouble("This example has no attention to show; its tokens and spans are below.");
    } else if (!("DecompressionStream" in window)) {
      trouble("This browser cannot unpack the attention (it lacks DecompressionStream); tokens and spans are shown without it.");
    } else {
      trouble(note);
      try {
        const levels = await unpack(mine.map);
        if (mine !== record) return;
        const width = levels.length / book.planes.length;
        weights = Array.from(levels.subarray(plane * width, (plane + 1) * width), (level) => (level / book.steps) ** 2);
        if (!weights.some((weight) => weight > 0)) {
          weights = null;
          trouble("This example has none of the tokens whose attention is chosen; its tokens and spans are below.");
        }
      } catch {
        trouble("The attention of this example cannot be unpacked; tokens and spans are shown without it.");
      }
    }
    text.shade(weights, hides);
    drawShares();
    if (text.active < 0) text.go(strongest(), false);
    else drawDetail();
  }

  function drawShares() {
    const body = $("span-shares").tBodies[0];
    body.replaceChildren();
    $("top-tokens").replaceChildren();
    if (!weights) return;
    const total = weights.reduce((sum, weight, at) => sum + (hides(at) ? 0 : weight), 0);
    const sums = new Map();
    weights.forEach((weight, at) => {
      if (hides(at)) return;
      const mine = at === 0 ? (owners[text.owner[0]].first ?? text.owner[0]) : text.owner[at];
      sums.set(mine, (sums.get(mine) || 0) + weight);
    });
    owners.forEach(({ letter, text: name, tone }, mine) => {
      if (!sums.has(mine)) return;
      const share = total > 0 ? sums.get(mine) / total : 0;
      const row = make("tr");
      const bar = make("td");
      const fill = make("span", "", `bar ${tone}`);
      fill.style.setProperty("--a", share.toFixed(3));
      bar.append(fill);
      row.append(Object.assign(make("th", letter ? `${letter}, ${name}` : name), { scope: "row" }), bar, make("td", percent(share)));
      body.append(row);
    });
    const ranked = weights.map((weight, at) => [weight, at]).filter(([weight, at]) => weight > 0 && !hides(at)).sort((a, b) => b[0] - a[0]);
    ranked.slice(0, 8).forEach(([weight, at]) => {
      const item = make("li");
      const name = make("bdi", TokenText.spoken(record.tokens[at]).trim() || "space");
      item.append(name, make("span", `${owners[text.owner[at]].letter || owners[text.owner[at]].text} · ${percent(weight)}`, "muted"));
      $("top-tokens").append(item);
    });
  }

  function drawDetail() {
    const detail = $("token-detail");
    const { active } = text;
    detail.replaceChildren();
    if (active < 0) return;
    const head = make("p", undefined, "detail-token");
    head.append(make("bdi", TokenText.spoken(record.tokens[active]).replace(/ /g, "·")));
    const from = kinds[$("kind").value];
    const where = $("head").value === "-1" ? "mean over heads" : `head ${$("head").value}`;
    let words;
    if (!weights) words = "no attention to show";
    else if (active >= weights.length) words = from.unseen;
    else {
      const rank = 1 + weights.filter((weight) => weight > weights[active]).length;
      const rest = 1 - weights[0];
      const without = active > 0 && rest > 0.001 ? ` (${percent(weights[active] / rest)} without the first token)` : "";
      words = `gets ${percent(weights[active])}${without} of the attention of ${from.text}, layer ${$("layer").value}, ${where}; rank ${rank} of ${weights.length}`;
    }
    detail.append(head, make("p", words), make("p", `token ${active + 1} of ${record.tokens.length}, ${owners[text.owner[active]].text}`, "muted"));
  }

  const text = new TokenText(pane, owners, {
    followsPointer: true,
    onActive: (_, isByHand) => {
      $("token-detail").setAttribute("aria-live", isByHand ? "polite" : "off");
      drawDetail();
    },
  });
  const strongest = () => Math.max(0, weights ? weights.reduce((best, weight, at) => (!hides(at) && (best < 0 || weight > weights[best]) ? at : best), -1) : 0);
  function choose(index, note = "") {
    record = book.records[index];
    $("example").value = String(index);
    $("example-previous").disabled = index === 0;
    $("example-next").disabled = index === book.records.length - 1;
    drawTokens();
    drawFacts();
    light(note);
  }

  // What was clicked in a figure: a trace, or a layer with its head and whose attention it is.
  function pick({ trace, row, layer, head }) {
    const lacks = [];
    let index = Number($("example").value);
    if (trace !== undefined) {
      const found = book.records.findIndex(({ id }) => id === trace);
      if (found < 0) lacks.push(`Trace ${trace} is none of the examples on this page.`);
      else index = found;
    }
    const kind = Object.keys(kinds).find((name) => kinds[name].row === row);
    if (kind !== undefined) $("kind").value = kind;
    if (layer !== undefined) setLayers(String(layer));
    if (layer !== undefined) setHeads(String(head ?? -1));
    if (layer !== undefined && $("layer").value !== String(layer)) lacks.push(`The page holds no attention of layer ${layer}.`);
    else if (head !== undefined && $("head").value !== String(head)) lacks.push(`The page holds no attention of head ${head} in layer ${layer}: the mean over heads is shown.`);
    choose(index, lacks.join(" "));
    view.scrollIntoView({ block: "start" });
    pane.focus({ preventScroll: true });
  }

  pane.addEventListener("focus", () => $("token-detail").setAttribute("aria-live", "polite"));
  view.addEventListener("submit", (event) => event.preventDefault());
  $("example").addEventListener("change", () => choose(Number($("example").value)));
  $("example-previous").addEventListener("click", () => choose(Number($("example").value) - 1));
  $("example-next").addEventListener("click", () => choose(Number($("example").value) + 1));
  $("kind").addEventListener("change", () => (setLayers(), setHeads(), light()));
  $("layer").addEventListener("change", () => (setHeads(), light()));
  $("head").addEventListener("change", () => light());
  $("hide-first").addEventListener("change", () => light());
  document.addEventListener("pick", ({ detail }) => pick(detail));

  $("example").replaceChildren(
    ...book.records.map(({ id, facts }, i) => {
      const said = told.filter(({ name, option }) => option !== null && ![null, undefined, ""].includes(facts[name]));
      const text = [`${i + 1}. ${id}`, ...said.map(({ name, option }) => `${option}${facts[name]}`)];
      return Object.assign(make("option", text.join(" · ")), { value: String(i) });
    }),
  );
  setLayers(book.layer === null ? undefined : String(book.layer));
  setHeads("-1");
  choose(book.first);
})();
