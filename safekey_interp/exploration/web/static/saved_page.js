// A page that was saved: the session as it was, and the readings that it holds.
import { openPage } from "./session_page.js";

const saved = JSON.parse(document.getElementById("session-data").textContent);

const connection = {
  readOnly: "This page was saved: it shows a session as it was, and changes nothing.",
  listen: (onMessage) => onMessage(saved.session),
  async read(name, asked) {
    const reading = saved.readings[`${name}?${new URLSearchParams(asked)}`];
    if (reading === undefined) throw new Error(saved.held);
    return reading;
  },
  async change() {
    throw new Error("This page was saved; nothing can be changed on it.");
  },
};

document.body.classList.add("saved");
// What the page surely holds readings of is what it opens with.
openPage(document, connection).press("k");
