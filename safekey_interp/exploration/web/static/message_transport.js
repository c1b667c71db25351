// Transport over the messages of a notebook's widget: what HTTP carries on the served page.

export class MessageTransport {
  // model: of anywidget. Several views of it hear each message, and know theirs by number.
  constructor(model) {
    Object.assign(this, { model, waiting: new Map(), asked: 0, view: Math.random().toString(36).slice(2) });
    model.on("msg:custom", this.#hear);
  }

  ask(path, { method = "GET", headers = {}, body = "" } = {}) {
    let text = "";
    return new Promise((resolve) => {
      this.#send({ method, path, headers, body }, (part) => {
        text += part.text;
        if (!part.more) resolve(new Response(text, { status: part.status }));
      });
    });
  }

  listen(onData, onLost) {
    this.#send({ method: "GET", path: "events" }, (part) => {
      part.text.split("\n\n").filter((event) => event.startsWith("data: ")).forEach((event) => onData(event.slice(6)));
      if (!part.more) onLost();
    });
  }

  close() {
    this.model.off("msg:custom", this.#hear);
    for (const id of this.waiting.keys()) this.model.send({ id, method: "CLOSE" });
  }

  #send(message, onPart) {
    const id = `${this.view}-${(this.asked += 1)}`;
    this.waiting.set(id, onPart);
    this.model.send({ id, ...message });
  }

  #hear = (part) => {
    const onPart = this.waiting.get(part?.id);
    if (!part.more) this.waiting.delete(part.id);
    onPart?.(part);
  };
}
