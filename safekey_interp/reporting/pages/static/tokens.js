// The token view: tokens as text, coloured by span, lit by attention. Every text is set with textContent.
(() => {
  const view = document.getElementById("tokens-view");
  if (!view) return;
  const book = JSON.parse(document.getElementById("examples-data").textContent);
  const $ = (id) => document.getElementById(id);
  const pane = $("tokens");
  const NAMES = {
    prompt: ["X", "prompt"],
    template: ["", "template"],
    understanding: ["U", "understanding"],
    key_sentence: ["K", "key sentence"],
    response: ["", "other response"],
    first_token: ["", "first token"],
  };
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

  // Which span a token belongs to: the narrowest named one, else template before the response and the rest after it.
  function ownerOf(at) {
    const end = record.spans.key_sentence ? record.spans.key_sentence[1] : Infinity;
    for (const name of ["key_sentence", "understanding", "prompt"]) {
      const span = record.spans[name];
      if (span && at >= span[0] && at < span[1]) return name;
    }
    return at >= end || (record.response !== null && at >= record.response) ? "response" : "template";
  }

  function drawTokens() {
    owner = record.tokens.map((_, at) => ownerOf(at));
    nodes = [];
    pane.replaceChildren();
    let run = null;
    record.tokens.forEach((text, at) => {
      if (at === 0 || owner[at] !== owner[at - 1]) {
        run = make("bdi", undefined, `run ${owner[at].replace("_", "-")}`);
        run.dir = "auto";
        run.setAttribute("role", "group");
        run.setAttribute("aria-label", NAMES[owner[at]][1]);
        const letter = NAMES[owner[at]][0];
        if (letter) {
          const mark = make("b", letter, `mark ${owner[at].replace("_", "-")}`);
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
    [...new Set(owner)].forEach((name) => {
      const item = make("span", undefined, "key");
      item.append(make("b", NAMES[name][0] || "–", `mark ${name.replace("_", "-")}`), ` ${NAMES[name][1]}`);
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
      ["Label", facts.label],
      ["Condition", facts.condition],
      ["K decides", facts.aha],
      ["U names the harm", facts.hint === null || facts.hint === undefined ? null : facts.hint ? "yes" : "no"],
      ["Confidence", facts.confidence],
      ["Why this K", facts.reason],
      ["Text from", facts.region === "answer" ? "the answer (no reasoning)" : null],
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
  async function light() {
    const mine = record;
    weights = null;
    const plane = planes.get(`${$("kind").value},${$("layer").value},${$("head").value}`);
    if (plane === undefined || !book.maps[mine.map]) {
      trouble("This example has no attention to show; its tokens and spans are below.");
    } else if (!("DecompressionStream" in window)) {
      trouble("This browser cannot unpack the attention (it lacks DecompressionStream); tokens and spans are shown without it.");
    } else {
      trouble("");
      try {
        const levels = await unpack(mine.map);
        if (mine !== record) return;
        const width = levels.length / book.planes.length;
        weights = Array.from(levels.subarray(plane * width, (plane + 1) * width), (level) => (level / book.steps) ** 2);
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
      const name = at === 0 && owner[0] === "template" ? "first_token" : owner[at];
      sums.set(name, (sums.get(name) || 0) + weight);
    });
    const order = ["first_token", "template", "prompt", "understanding", "key_sentence", "response"];
    order.filter((name) => sums.has(name)).forEach((name) => {
      const share = total > 0 ? sums.get(name) / total : 0;
      const row = make("tr");
      const bar = make("td");
      const fill = make("span", "", `bar ${name.replace("_", "-")}`);
      fill.style.setProperty("--a", share.toFixed(3));
      bar.append(fill);
      const label = NAMES[name][0] ? `${NAMES[name][0]}, ${NAMES[name][1]}` : NAMES[name][1];
      row.append(Object.assign(make("th", label), { scope: "row" }), bar, make("td", percent(share)));
      body.append(row);
    });
    const ranked = weights.map((weight, at) => [weight, at]).filter(([weight, at]) => weight > 0 && !hides(at)).sort((a, b) => b[0] - a[0]);
    ranked.slice(0, 8).forEach(([weight, at]) => {
      const item = make("li");
      const name = make("bdi", spoken(record.tokens[at]).trim() || "space");
      item.append(name, make("span", `${NAMES[owner[at]][0] || NAMES[owner[at]][1]} · ${percent(weight)}`, "muted"));
      $("top-tokens").append(item);
    });
  }

  function drawDetail() {
    const detail = $("token-detail");
    detail.replaceChildren();
    if (active < 0) return;
    const head = make("p", undefined, "detail-token");
    head.append(make("bdi", spoken(record.tokens[active]).replace(/ /g, "·")));
    const from = $("kind").value === "map" ? "K" : "the decision row";
    const where = $("head").value === "-1" ? "mean over heads" : `head ${$("head").value}`;
    let words;
    if (!weights) words = "no attention to show";
    else if (active >= weights.length) words = "comes after K, which cannot see it";
    else {
      const rank = 1 + weights.filter((weight) => weight > weights[active]).length;
      const rest = 1 - weights[0];
      const without = active > 0 && rest > 0.001 ? ` (${percent(weights[active] / rest)} without the first token)` : "";
      words = `gets ${percent(weights[active])}${without} of the attention of ${from}, layer ${$("layer").value}, ${where}; rank ${rank} of ${weights.length}`;
    }
    detail.append(head, make("p", words), make("p", `token ${active + 1} of ${record.tokens.length}, ${NAMES[owner[active]][1]}`, "muted"));
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

  function choose(index) {
    record = book.records[index];
    $("example").value = String(index);
    $("example-previous").disabled = index === 0;
    $("example-next").disabled = index === book.records.length - 1;
    drawTokens();
    drawFacts();
    light();
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
  $("head").addEventListener("change", light);
  $("hide-first").addEventListener("change", light);

  $("example").replaceChildren(
    ...book.records.map(({ id, facts }, i) => {
      const text = [`${i + 1}. ${id}`, facts.label, facts.condition, facts.aha && `K ${facts.aha}`, facts.confidence !== undefined && facts.confidence !== null && `confidence ${facts.confidence}`];
      return Object.assign(make("option", text.filter(Boolean).join(" · ")), { value: String(i) });
    }),
  );
  setLayers(book.layer === null ? undefined : String(book.layer));
  setHeads("-1");
  choose(book.first);
})();
