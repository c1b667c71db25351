// In the place of the connection, on a page that was saved: the session as it was, and the readings that it holds.
const saved = JSON.parse(document.getElementById("session-data").textContent);

export function listen(onMessage) {
  document.body.classList.add("saved");
  document.getElementById("role").textContent = "This page was saved: it shows a session as it was, and changes nothing.";
  onMessage(saved.session);
  // What the page holds readings of is what it opens with.
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "k", bubbles: true }));
}

export async function read(name, asked) {
  const reading = saved.readings[`${name}?${new URLSearchParams(asked)}`];
  if (reading === undefined) throw new Error("This saved page has the readings of a key sentence’s first token alone.");
  return reading;
}

export async function change() {
  throw new Error("This page was saved; nothing can be changed on it.");
}
