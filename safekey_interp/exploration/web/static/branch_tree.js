// Tree of branches: which one is shown, what it is called, and which one it is compared with.
import { LABELS, make } from "./dom.js";

export class BranchTree {
  constructor({ $, onPick, onRename, onDelete, onCompare, onSave }) {
    Object.assign(this, { $, onPick, onRename, onDelete, onCompare, onSave, items: [] });
    this.$("branches").addEventListener("keydown", (event) => this.#key(event));
    this.$("branches").addEventListener("click", (event) => {
      const item = event.target.closest("[data-branch]");
      const act = event.target.closest("[data-do]")?.dataset.do;
      if (!item) return;
      if (act) this.#act(act, item.dataset.branch);
      else this.onPick(item.dataset.branch);
    });
  }

  show(branches, { selected, compared, mayChange, models }) {
    this.$("no-branches").hidden = branches.length > 0;
    this.$("branches").hidden = branches.length === 0;
    Object.assign(this, { selected, compared });
    const children = new Map();
    branches.forEach((branch) => {
      const above = branch.control_of ?? (branches.some((other) => other.branch === branch.parent) ? branch.parent : null);
      children.set(above, [...(children.get(above) ?? []), branch]);
    });
    this.items = [];
    const list = (above, level) =>
      (children.get(above) ?? []).flatMap((branch) => {
        this.items.push(branch.branch);
        return [this.#item(branch, level, { selected, compared, mayChange, models }), ...list(branch.branch, level + 1)];
      });
    this.$("branches").replaceChildren(...list(null, 1));
    this.$("branches").setAttribute("aria-activedescendant", selected === null ? "" : `branch-${selected}`);
  }

  #item(branch, level, { selected, compared, mayChange, models }) {
    const isSelected = branch.branch === selected;
    const item = make("li", {
      role: "treeitem", id: `branch-${branch.branch}`, "data-branch": branch.branch, "aria-level": level, "aria-selected": String(isSelected),
      class: `${branch.control_of === null ? "" : "is-control"} ${branch.branch === compared ? "is-compared" : ""}`,
    });
    item.style.setProperty("--level", level - 1);
    const label = branch.failed ? "failed" : branch.status === "running" ? "writes …" : LABELS[branch.ended?.label] ?? "";
    item.append(make("bdi", { class: "name", text: branch.name }), make("span", { class: "muted", text: [models.length > 1 && level === 1 ? models[branch.model].name : "", label].filter(Boolean).join(", ") }));
    if (isSelected && mayChange) {
      const button = (name, text, label) => make("button", { type: "button", class: "small", "data-do": name, tabindex: "-1", text, "aria-label": `${label} ${branch.name}` });
      item.append(make("span", { class: "acts" }, button("rename", "Rename", "Rename"), button("delete", "Delete", "Delete"), button("save", "Save", "Save the trace of")));
    } else if (!isSelected && selected !== null) {
      item.append(make("button", { type: "button", class: "small compare", "data-do": "compare", tabindex: "-1", text: branch.branch === compared ? "Compared" : "Compare", "aria-label": `Compare with ${branch.name}` }));
    }
    return item;
  }

  #act(act, id) {
    if (act === "compare") this.onCompare(id);
    if (act === "delete") this.#delete(id);
    if (act === "save") this.onSave(id);
    if (act === "rename") this.#rename(id);
  }

  // Deleted for good: asked for twice.
  #delete(id) {
    const button = this.$(`branch-${id}`).querySelector("[data-do=delete]");
    if (!button || button.textContent === "Delete for good") return this.onDelete(id);
    button.textContent = "Delete for good";
    button.setAttribute("aria-label", `Delete ${this.$(`branch-${id}`).querySelector(".name").textContent} and what came from it for good`);
  }

  #rename(id) {
    const item = this.$(`branch-${id}`);
    const name = item.querySelector(".name");
    const box = make("input", { class: "rename", "aria-label": "New name", maxlength: "200" });
    box.value = name.textContent;
    const end = (isKept) => {
      if (!box.isConnected) return;
      const text = box.value.trim();
      box.replaceWith(name);
      if (isKept && text && text !== name.textContent) this.onRename(id, text);
      this.$("branches").focus();
    };
    box.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") end(event.key === "Enter");
    });
    box.addEventListener("click", (event) => event.stopPropagation());
    box.addEventListener("blur", () => end(true));
    name.replaceWith(box);
    box.select();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.$("branches")) return;
    const at = this.items.indexOf(event.shiftKey ? this.compared : this.selected);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.items.length - 1 }[event.key];
    const act = { F2: "rename", Delete: "delete" }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      if (this.items[next] !== undefined) (event.shiftKey ? this.onCompare : this.onPick)(this.items[next]);
    } else if (act && this.selected !== null) {
      event.preventDefault();
      this.#act(act, this.selected);
    }
  }
}
