"""A notebook's front end for tests of the widget: its messages, without Jupyter."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from itertools import count
from typing import Any

import comm


class Frontend(comm.base_comm.BaseComm):
    """The other end of a widget's connection: what the kernel sends it, and what a page sends the kernel."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        """Messages of the widget that are no changes of its state."""
        self._number = count()
        super().__init__(*args, **more)

    def publish_msg(self, msg_type: str, data: Any = None, *_: Any, **__: Any) -> None:
        if msg_type == "comm_msg" and data["method"] == "custom":
            self.heard.put(json.loads(json.dumps(data["content"])))

    def send_to_kernel(self, message: Any) -> None:
        """As a page's model does."""
        self.handle_msg({"content": {"data": {"method": "custom", "content": message}}, "buffers": []})

    def begin(self, method: str, path: str, body: Any = None, **headers: str) -> str:
        """Send a request; its id."""
        name = f"view-{next(self._number)}"
        text = "" if body is None else json.dumps(body)
        words = {name.replace("_", "-"): value for name, value in headers.items()}
        self.send_to_kernel({"id": name, "method": method, "path": path, "body": text, "headers": words})
        return name

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and answer of a request; what comes for others meanwhile is kept."""
        name = self.begin(method, path, body, **headers)
        answer = self.until(lambda part: part["id"] == name and not part["more"])
        return answer["status"], json.loads(answer["text"])

    def until(self, is_it: Callable[[Any], bool]) -> Any:
        """The next message for which this holds; the others stay for later."""
        passed = []
        try:
            while not is_it(message := self.heard.get(timeout=60)):
                passed.append(message)
            return message
        finally:
            for each in passed:
                self.heard.put(each)

    def events(self, name: str) -> Callable[[Callable[[Any], bool]], Any]:
        """Of a stream that was begun: a function that waits for the event for which something holds."""

        def wait(is_it: Callable[[Any], bool]) -> Any:
            while True:
                part = self.until(lambda message: message["id"] == name)
                for line in part["text"].splitlines():
                    if line.startswith("data: ") and is_it(event := json.loads(line[6:])):
                        return event

        return wait
