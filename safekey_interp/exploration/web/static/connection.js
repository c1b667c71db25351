// Connection to the session's server: events as they come, and requests whose errors are one line.
let tab = null;

export function listen(onMessage, onLost) {
  const events = new EventSource("events");
  events.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "session") tab = message.tab;
    onMessage(message);
  };
  events.onerror = () => onLost();
}

async function answer(request) {
  let reply;
  try {
    reply = await request;
  } catch {
    throw new Error("The server does not answer; has the command ended?");
  }
  const value = await reply.json().catch(() => ({ error: `The server answered ${reply.status}.` }));
  if (!reply.ok) throw new Error(value.error);
  return value;
}

export const read = (name, asked) => answer(fetch(`api/${name}?${new URLSearchParams(asked)}`));

export const change = (name, body) =>
  answer(
    fetch(`api/${name}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(tab ? { "X-Tab": tab } : {}) },
      body: JSON.stringify(body),
    }),
  );
