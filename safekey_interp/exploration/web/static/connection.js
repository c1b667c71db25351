// Connection to a session: events as they come, and requests whose errors are one line; a transport carries both.

export class Connection {
  // transport.ask(path, options) resolves to a Response, transport.listen(onData, onLost) begins the events.
  constructor(transport) {
    Object.assign(this, { transport, tab: null });
  }

  readOnly = "Another tab has this session; this one shows it and changes nothing.";

  listen(onMessage, onLost) {
    this.transport.listen((data) => {
      const message = JSON.parse(data);
      if (message.type === "session") this.tab = message.tab;
      onMessage(message);
    }, onLost);
  }

  read = (name, asked) => this.#asked(`api/${name}?${new URLSearchParams(asked)}`).then((reply) => reply.json());

  change = (name, body) => this.#asked(`api/${name}`, { method: "POST", headers: { "Content-Type": "application/json", ...(this.tab ? { "X-Tab": this.tab } : {}) }, body: JSON.stringify(body) }).then((reply) => reply.json());

  // Let the reader keep a file.
  async save(path, name) {
    const address = URL.createObjectURL(await (await this.#asked(path)).blob());
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  async #asked(path, options) {
    let reply;
    try {
      reply = await this.transport.ask(path, options);
    } catch {
      throw new Error("The server does not answer; has the command ended?");
    }
    if (reply.ok) return reply;
    const { error } = await reply.json().catch(() => ({ error: `The server answered ${reply.status}.` }));
    throw new Error(error);
  }
}
