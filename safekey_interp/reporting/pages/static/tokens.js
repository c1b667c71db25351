// The token view: tokens as text, coloured by span, lit by attention. Every text is set with textContent.
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
  let nodes = [];
  let owner = [];
  let weights = null;
  let active = -1;

  const make = (name, text, className) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const percent = (value) => (value >= 0.0995 ? `${(100 * value).toFixed(0)} %` : value >= 0.00095 ? `${(100 * value).toFixed(1)} %` : value > 0 ? "< 0.1 %" : "0 %");
  // Python has spelled out what is not seen and what turns its neighbours around.
  const visible = (text) => (text === "" ? "∅" : text);
  const spoken = (text) => (/^\s+$/.test(text) ? (text.includes("\n") ? "line break" : "space") : visible(text).replace(/\n/g, "⏎"));
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
    owner = ownersOf(record);
    nodes = [];
    pane.replaceChildren();
    let run = null;
    record.tokens.forEach((text, at) => {
      if (at === 0 || owner[at] !== owner[at - 1]) {
        run = make("bdi", undefined, `run ${owners[owner[at]].tone}`);
        run.dir = "auto";
        run.setAttribute("role", "group");
        run.setAttribute("aria-label", owners[owner[at]].text);
        const { letter, tone } = owners[owner[at]];
        if (letter) {
          const mark = make("b", letter, `mark ${tone}`);
          mark.setAttribute("aria-hidden", "true");
          run.append(mark);
        }
        pane.append(run);
      }
      const node = make("span", visible(text).replace(/\n/g, "⏎\n"), "token");
      node.id = `token-${at}`;
      node.dataset.at = at;
      node.setAttribute("role", "option");
      node.setAttribute("aria-selected", "false");
      node.setAttribute("aria-label", spoken(text));
      nodes.push(node);
      run.append(node);
    });
    pane.setAttribute("aria-label", `Tokens of example ${record.id}`);
    pane.removeAttribute("aria-activedescendant");
    pane.scrollTop = 0;
    active = -1;
    const legend = $("token-legend");
    legend.replaceChildren();
    [...new Set(owner)].forEach((mine) => {
      const { letter, text, tone } = owners[mine];
      const item = make("span", undefined, "key");
      item.append(make("b", letter || "–", `mark ${tone}`), ` ${text}`);
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
    const top = weights ? Math.max(1e-9, ...weights.filter((_, at) => !hides(at))) : 1;
    nodes.forEach((node, at) => {
      const share = weights && at < weights.length && !hides(at) ? Math.sqrt(weights[at] / top) : 0;
      node.style.setProperty("--a", share.toFixed(3));
      node.classList.toggle("unread", weights !== null && at >= weights.length);
    });
    drawShares();
    if (active < 0) go(strongest(), false);
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
      const mine = at === 0 ? (owners[owner[0]].first ?? owner[0]) : owner[at];
      sums.set(mine, (sums.get(mine) || 0) + weight);
    });
    owners.forEach(({ letter, text, tone }, mine) => {
      if (!sums.has(mine)) return;
      const share = total > 0 ? sums.get(mine) / total : 0;
      const row = make("tr");
      const bar = make("td");
      const fill = make("span", "", `bar ${tone}`);
      fill.style.setProperty("--a", share.toFixed(3));
      bar.append(fill);
      row.append(Object.assign(make("th", letter ? `${letter}, ${text}` : text), { scope: "row" }), bar, make("td", percent(share)));
      body.append(row);
    });
    const ranked = weights.map((weight, at) => [weight, at]).filter(([weight, at]) => weight > 0 && !hides(at)).sort((a, b) => b[0] - a[0]);
    ranked.slice(0, 8).forEach(([weight, at]) => {
      const item = make("li");
      const name = make("bdi", spoken(record.tokens[at]).trim() || "space");
      item.append(name, make("span", `${owners[owner[at]].letter || owners[owner[at]].text} · ${percent(weight)}`, "muted"));
      $("top-tokens").append(item);
    });
  }

  function drawDetail() {
    const detail = $("token-detail");
    detail.replaceChildren();
    if (active < 0) return;
    const head = make("p", undefined, "detail-token");
    head.append(make("bdi", spoken(record.tokens[active]).replace(/ /g, "·")));
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
    detail.append(head, make("p", words), make("p", `token ${active + 1} of ${record.tokens.length}, ${owners[owner[active]].text}`, "muted"));
  }

  function go(at, spokenAloud) {
    const next = Math.min(Math.max(at, 0), nodes.length - 1);
    if (next === active) return;
    if (active >= 0 && nodes[active]) {
      nodes[active].classList.remove("active");
      nodes[active].setAttribute("aria-selected", "false");
    }
    active = next;
    nodes[active].classList.add("active");
    nodes[active].setAttribute("aria-selected", "true");
    pane.setAttribute("aria-activedescendant", nodes[active].id);
    $("token-detail").setAttribute("aria-live", spokenAloud ? "polite" : "off");
    if (spokenAloud) nodes[active].scrollIntoView({ block: "nearest" });
    drawDetail();
  }
  const strongest = () => Math.max(0, weights ? weights.reduce((best, weight, at) => (!hides(at) && (best < 0 || weight > weights[best]) ? at : best), -1) : 0);
  const jump = (step) => {
    let at = active;
    if (step > 0) {
      while (at < nodes.length - 1 && owner[at] === owner[active]) at += 1;
      return at;
    }
    while (at > 0 && owner[at - 1] === owner[active]) at -= 1;
    if (at < active || at === 0) return at;
    at -= 1;
    while (at > 0 && owner[at - 1] === owner[at]) at -= 1;
    return at;
  };
  // The token nearest in the line above or below, as the eye would go.
  const vertical = (step) => {
    const box = nodes[active].getBoundingClientRect();
    const middle = (box.left + box.right) / 2;
    let best = active;
    let distance = Infinity;
    let line = null;
    for (let at = active + step; at >= 0 && at < nodes.length; at += step) {
      const there = nodes[at].getClientRects()[0];
      if (!there || (step > 0 ? there.top <= box.top + 4 : there.top >= box.top - 4)) continue;
      line = line ?? there.top;
      if (Math.abs(there.top - line) > 4) break;
      const off = Math.abs((there.left + there.right) / 2 - middle);
      if (off < distance) [best, distance] = [at, off];
    }
    return best;
  };

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

  pane.addEventListener("pointerover", (event) => {
    const node = event.target.closest(".token");
    if (node) go(Number(node.dataset.at), false);
  });
  pane.addEventListener("click", (event) => {
    const node = event.target.closest(".token");
    if (node) go(Number(node.dataset.at), true);
  });
  pane.addEventListener("focus", () => $("token-detail").setAttribute("aria-live", "polite"));
  pane.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      ArrowRight: () => active + 1,
      ArrowLeft: () => active - 1,
      ArrowDown: () => vertical(1),
      ArrowUp: () => vertical(-1),
      Home: () => 0,
      End: () => nodes.length - 1,
      PageDown: () => jump(1),
      PageUp: () => jump(-1),
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    go(moves[event.key](), true);
  });
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
