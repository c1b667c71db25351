// The page as a notebook's widget: the same modules and styles in a shadow root, with messages in place of HTTP.
import { Connection } from "./connection.js";
import { MessageTransport } from "./message_transport.js";
import { openPage } from "./session_page.js";

// page: its HTML. style: its style sheets.
export const widget = ({ page, style }) => ({
  render({ model, el }) {
    const root = el.attachShadow({ mode: "open" });
    const sheet = document.createElement("style");
    sheet.textContent = inTheme(style, theme());
    root.append(sheet, document.adoptNode(new DOMParser().parseFromString(page, "text/html").body));
    // The notebook would take single keys for commands of its own.
    el.dataset.lmSuppressShortcuts = "true";
    el.addEventListener("keydown", (event) => event.stopPropagation());
    const transport = new MessageTransport(model);
    const connection = new Connection(transport);
    // Who shows it last has it: a view that was left open, or lost in a reload, does not say that it is gone.
    const opened = openPage(root, connection, { takesOver: true });
    return () => (opened.close(), transport.close());
  },
});

// Of the notebook, which may differ from the system's: JupyterLab's and VS Code's mark, or none.
function theme() {
  const { dataset, classList } = document.body;
  if (dataset.jpThemeLight !== undefined) return dataset.jpThemeLight === "true" ? "light" : "dark";
  return ["dark", "light"].find((name) => classList.contains(`vscode-${name}`)) ?? null;
}

function inTheme(style, name) {
  if (name === null) return style;
  const isDark = name === "dark" ? "screen" : "not all";
  return `${style.replaceAll("screen and (prefers-color-scheme: dark)", isDark)}\n:host { color-scheme: ${name}; }`;
}
