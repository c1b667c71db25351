// The page that a server sends: its session comes over HTTP.
import { Connection } from "./connection.js";
import { openPage } from "./session_page.js";

const http = {
  ask: fetch.bind(window),
  listen(onData, onLost) {
    const events = new EventSource("events");
    events.onmessage = ({ data }) => onData(data);
    events.onerror = onLost;
  },
};

const page = openPage(document, new Connection(http));
window.addEventListener("error", ({ message }) => page.trouble(message));
window.addEventListener("unhandledrejection", ({ reason }) => page.trouble(reason?.message ?? String(reason)));
