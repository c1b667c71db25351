// Ribbon under a response: one reader's score at each token, its alarm line, and the band of random vectors.
import { draw, number } from "./dom.js";

const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [96, 34, 6, 8, 12];

// tokens: of one response. reader: its name, threshold and rate. spans: U and K. n: tokens across, so that columns align.
export function ribbon(tokens, { reader, spans, start, n, width, active }) {
  const shown = tokens.map((token) => token.scores[reader.name] ?? null);
  const limits = shown.flatMap((score) => (score ? [score[0], score[1] === null ? score[0] : score[1] - 1.96 * score[2], score[1] === null ? score[0] : score[1] + 1.96 * score[2]] : []));
  if (reader.threshold !== null) limits.push(reader.threshold);
  const [low, high] = limits.length ? [Math.min(...limits, 0), Math.max(...limits, 0)] : [-1, 1];
  const across = Math.max(n, 12);
  const x = (index) => LEFT + ((index + 0.5) / across) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": spoken(shown, reader) });
  const add = (name, attributes) => svg.append(draw(name, attributes));
  for (const [name, span] of [["understanding", spans.understanding], ["key-sentence", spans.key_sentence]]) {
    if (!span) continue;
    const [from, to] = [x(span[0] - start - 0.5), x(span[1] - start - 0.5)];
    add("rect", { class: `span ${name}`, x: from, width: Math.max(2, to - from), y: HEIGHT - 6, height: 4 });
  }
  add("line", { class: "zero", x1: LEFT, x2: width - RIGHT, y1: y(0), y2: y(0) });
  const band = shown.map((score, i) => [score, i]).filter(([score]) => score && score[1] !== null);
  if (band.length) {
    const edge = (sign) => band.map(([score, i]) => `${x(i)},${y(score[1] + sign * 1.96 * score[2])}`);
    add("polygon", { class: "band", points: [...edge(1), ...edge(-1).reverse()].join(" ") });
  }
  if (reader.threshold !== null) add("line", { class: "alarm", x1: LEFT, x2: width - RIGHT, y1: y(reader.threshold), y2: y(reader.threshold) });
  const points = shown.map((score, i) => (score ? `${x(i)},${y(score[0])}` : null)).filter(Boolean);
  add("polyline", { class: "score", points: points.join(" ") });
  shown.forEach((score, i) => {
    if (score && reader.threshold !== null && score[0] > reader.threshold) add("circle", { class: "above", cx: x(i), cy: y(score[0]), r: 2.6 });
  });
  if (active !== null && active >= start) add("line", { class: "cursor", x1: x(active - start), x2: x(active - start), y1: TOP - 4, y2: HEIGHT });
  for (const value of new Set([low, high])) {
    const text = draw("text", { class: "tick", x: LEFT - 5, y: y(value) + 4 });
    text.textContent = number(value, 1);
    svg.append(text);
  }
  svg.indexAt = (clientX) => Math.round(((clientX - svg.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT)) * across - 0.5);
  return svg;
}

// KL divergence of each next-token distribution from that of the branch beside it, nats.
export function klStrip(kl, { n, width }) {
  const [height, top] = [30, Math.max(...kl.filter((value) => value !== null), 1e-6)];
  const step = (width - LEFT - RIGHT) / Math.max(n, 12);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `KL divergence by token, at most ${number(top)} nats` });
  kl.forEach((value, index) => {
    if (value !== null) svg.append(draw("rect", { class: "kl", x: LEFT + index * step + 0.5, width: Math.max(1, step - 1), y: height - 2 - ((height - 6) * value) / top, height: ((height - 6) * value) / top }));
  });
  for (const [text, y] of [["KL", 12], [number(top, top < 0.1 ? 3 : 1), 24]]) {
    const node = draw("text", { class: "tick", x: LEFT - 5, y });
    node.textContent = text;
    svg.append(node);
  }
  return svg;
}

export function reading(reader) {
  if (!reader) return "No probe: nothing is scored.";
  const what = `Bars and ribbon: ${reader.name}.`;
  if (reader.threshold === null) return `${what} No alarm line: ${reader.no_threshold}.`;
  const share = `${(100 * reader.false_positive_rate).toFixed(0)} %`;
  return `${what} Dashed: alarm line, which at most ${share} of benign traces pass (n = ${reader.n_benign}). Band: random vectors.`;
}

function spoken(shown, reader) {
  const scores = shown.filter(Boolean);
  if (!scores.length) return `No scores of ${reader.name} yet`;
  const top = Math.max(...scores.map(([value]) => value));
  const alarm = reader.threshold === null ? "" : `, alarm line at ${number(reader.threshold)}, ${scores.some((score) => score[3]) ? "passed" : "not passed"}`;
  return `Score of ${reader.name} at ${scores.length} tokens, at most ${number(top)}${alarm}`;
}
