// Ribbon under a response: one reader's score at each token, its alarm line, and the band of random vectors.
import { draw, number } from "./dom.js";

const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [96, 34, 6, 8, 12];

// Lowest and highest of what the ribbons of some responses show, one scale for columns that stand side by side: scores and band where the
// reader reads, and half as much again; what lies outside elsewhere is cut, and so are scores of what was steered, with what that added. Of scores
// that have no such token yet, all.
export function ribbonLimits(all, reader) {
  const own = all.filter((branch) => !branch.is_steered);
  const branches = own.length ? own : all;
  const read = branches.flatMap((branch) => readScores(branch, reader).flatMap(edges));
  const limits = read.length ? read : branches.flatMap(({ tokens }) => tokens.flatMap(({ scores }) => scores[reader.name]?.[0] ?? []));
  if (reader.threshold !== null) limits.push(reader.threshold);
  const [low, high] = limits.length ? [Math.min(...limits, 0), Math.max(...limits, 0)] : [-1, 1];
  const room = read.length && reader.position !== null ? (high - low) / 4 : 0;
  return [low - room, high + room];
}

const edges = (score) => (score[1] === null ? [score[0]] : [score[0], score[1] - 1.96 * score[2], score[1] + 1.96 * score[2]]);

// Scores at the tokens that a reader reads.
function readScores({ tokens, spans, prompt_tokens: before }, reader) {
  const at = spans.read_at?.[reader.name] ?? [];
  return at.map((position) => tokens[position - before.length]?.scores[reader.name]).filter((score) => score && score[0] !== null);
}

// What a reader says of a response at the tokens that it reads: its largest score there, the band of random vectors at that token, and
// whether the score passes the alarm line.
export function signalOf(branch, reader) {
  const [best] = readScores(branch, reader).sort((a, b) => b[0] - a[0]);
  if (!best) return null;
  const [value, ...band] = edges(best);
  return { value, band, isSignal: reader.threshold === null ? null : value > reader.threshold };
}

// tokens: of one response. reader: its name, threshold and rate. spans: U, K and where the reader reads. n: tokens across, so that columns
// align. limits: of the vertical axis.
export function ribbon(tokens, { reader, spans, start, n, width, active, limits: [low, high] }) {
  const shown = tokens.map((token) => token.scores[reader.name] ?? null);
  const readAt = new Set((spans.read_at?.[reader.name] ?? []).map((position) => position - start));
  const across = Math.max(n, 12);
  const x = (index) => LEFT + ((index + 0.5) / across) * (width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (Math.min(Math.max(value, low), high) - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": spoken(shown, reader, readAt) });
  const add = (name, attributes) => svg.append(draw(name, attributes));
  for (const [name, span] of [["understanding", spans.understanding], ["key-sentence", spans.key_sentence]]) {
    if (!span) continue;
    const [from, to] = [x(span[0] - start - 0.5), x(span[1] - start - 0.5)];
    add("rect", { class: `span ${name}`, x: from, width: Math.max(2, to - from), y: HEIGHT - 6, height: 4 });
  }
  add("line", { class: "zero", x1: LEFT, x2: width - RIGHT, y1: y(0), y2: y(0) });
  const band = shown.map((score, i) => [score, i]).filter(([score]) => score && score[1] !== null);
  if (band.length && reader.position === null) {
    const edge = (sign) => band.map(([score, i]) => `${x(i)},${y(score[1] + sign * 1.96 * score[2])}`);
    add("polygon", { class: "band", points: [...edge(1), ...edge(-1).reverse()].join(" ") });
  }
  if (reader.threshold !== null) add("line", { class: "alarm", x1: LEFT, x2: width - RIGHT, y1: y(reader.threshold), y2: y(reader.threshold) });
  const points = shown.map((score, i) => (score ? `${x(i)},${y(score[0])}` : null)).filter(Boolean);
  add("polyline", { class: "score", points: points.join(" ") });
  shown.forEach((score, i) => {
    if (!score || !readAt.has(i)) return;
    const isAbove = reader.threshold !== null && score[0] > reader.threshold;
    if (score[1] !== null && readAt.size <= 3) {
      const [bottom, upper] = [score[1] - 1.96 * score[2], score[1] + 1.96 * score[2]].map(y);
      add("rect", { class: "band read-band", x: x(i) - 3.5, width: 7, y: upper, height: Math.max(1, bottom - upper) });
    }
    const [px, py] = [x(i), y(score[0])];
    // What lies above the axis is an arrow at its end.
    if (score[0] > high) add("path", { class: isAbove ? "read above" : "read", d: `M${px - 5} ${py + 8}h10l-5 -9z` });
    else add("circle", { class: isAbove ? "read above" : "read", cx: px, cy: py, r: readAt.size > 3 ? 2.6 : 4.2 });
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

// KL divergence of each next-token distribution from that of the branch beside it, nats; top: the largest of all columns.
export function klStrip(kl, { n, width, top }) {
  const height = 30;
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

// The tokens that a reader reads, in words: where a score is from, and which they are.
const PLACES = {
  decision: ["before K", "the last token before K"],
  understanding: ["in U", "U"],
  key_sentence: ["in K", "K"],
  prompt_end: ["before the response", "the last token before the response"],
  "last(understanding)": ["at the end of U", "the last token of U"],
  "first(key_sentence)": ["where K begins", "the first token of K"],
};
const wordsOf = ({ position }) => (position === null ? ["at most", "all tokens"] : PLACES[position] ?? [`at ${position}`, position]);
export const nearOf = (reader) => wordsOf(reader)[0];
export const placeOf = (reader) => wordsOf(reader)[1];

export function reading(reader) {
  if (!reader) return "No probe: nothing is scored.";
  const what = `Bars under tokens and curve: score of ${reader.name}, ${reader.is_direction ? "length along the direction" : "log-odds"}. It was fitted at ${placeOf(reader)} (dot)${reader.position === null ? "" : "; elsewhere it is shown, and says nothing by itself"}.`;
  if (reader.threshold === null) return `${what} No alarm line: ${reader.no_threshold}.`;
  const share = `${(100 * reader.false_positive_rate).toFixed(0)} %`;
  return `${what} Dashed: alarm line; at most ${share} of benign traces score higher there (calibrated on ${reader.n_benign} that ${reader.calibrated_by} reads). Grey bar: 95 % of the scores of random vectors of equal norm.`;
}

function spoken(shown, reader, readAt) {
  const scores = shown.filter(Boolean);
  if (!scores.length) return `No scores of ${reader.name} yet`;
  const top = Math.max(...scores.map(([value]) => value));
  const isPassed = shown.some((score, i) => score && readAt.has(i) && score[0] > reader.threshold);
  const alarm = reader.threshold === null ? "" : `, alarm line at ${number(reader.threshold)}, ${isPassed ? "passed" : "not passed"} at ${placeOf(reader)}`;
  return `Score of ${reader.name} at ${scores.length} tokens, at most ${number(top)}${alarm}`;
}
