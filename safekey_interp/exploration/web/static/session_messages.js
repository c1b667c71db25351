// Messages of a session, and what each changes of what a page knows and shows.
const fresh = (branch) => ({ difference: null, ...branch });

export const hears = {
  session(page, message) {
    Object.assign(page.session, { models: message.models, readers: message.readers, presets: message.presets, isWriter: message.is_writer });
    page.session.branches = new Map(message.branches.map((branch) => [branch.branch, fresh(branch)]));
    const names = message.models.map(({ name, n_layers: layers, n_heads: heads }) => `${name}, ${layers} layers × ${heads} heads`).join("; ");
    page.$("about").textContent = [names, message.saved ? "a saved page" : message.folder ? `kept in ${message.folder}` : "not kept on disk"].join(" · ");
    page.showSession();
    if (page.takesOver && !message.is_writer) page.ask("take_over", {});
  },
  role: (page, { is_writer: isWriter }) => ((page.session.isWriter = isWriter), page.draw()),
  readers: (page, { readers }) => ((page.session.readers = readers), page.drawReaders(), page.draw()),
  branch(page, message) {
    const { session, shown } = page;
    const before = session.branches.get(message.branch);
    session.branches.set(message.branch, Object.assign(fresh(message), before && { difference: before.difference, compared: before.compared }));
    const [awaited, compared] = shown.awaited ?? [];
    if (awaited === message.branch) (shown.awaited = null), page.select(awaited, compared);
    else if (shown.selected === null) page.select(message.branch);
    else page.draw();
  },
  running(page, { branch: id }) {
    const branch = page.session.branches.get(id);
    if (!branch) return;
    Object.assign(branch, { status: "running", failed: null });
    page.views.get(id)?.drawHead();
    page.drawTree();
    page.drawButtons();
  },
  token(page, { branch: id, token }) {
    const branch = page.session.branches.get(id);
    if (!branch || token.index < branch.tokens.length) return;
    branch.tokens.push(token);
    const view = page.views.get(id);
    if (!view || view.isReplaying) return;
    const { shown } = page;
    const seen = page.look();
    const isWider = String(seen.range) !== String(shown.range) || String(seen.limits) !== String(shown.limits);
    if (isWider) {
      Object.assign(shown, { range: seen.range, limits: seen.limits });
      page.views.forEach((each) => each.rescale(seen));
    }
    view.look = seen;
    view.add(token);
  },
  spans(page, { branch: id, spans }) {
    const branch = page.session.branches.get(id);
    if (!branch) return;
    branch.spans = spans;
    const view = page.views.get(id);
    if (view && !view.isReplaying) view.drawTokens();
  },
  ended(page, message) {
    const branch = page.session.branches.get(message.branch);
    if (!branch) return;
    Object.assign(branch, { status: "ended", ended: message });
    page.drawControls();
  },
  failed(page, message) {
    const branch = page.session.branches.get(message.branch);
    if (branch) Object.assign(branch, { status: "failed", failed: message.message });
    page.trouble(message.message);
  },
  deleted(page, { branches: gone }) {
    const { session, shown } = page;
    gone.forEach((id) => session.branches.delete(id));
    if (!session.branches.has(shown.selected)) shown.selected = [...session.branches.keys()].at(-1) ?? null;
    if (!session.branches.has(shown.compared)) shown.compared = null;
    page.draw();
  },
};
