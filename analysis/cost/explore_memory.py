"""Memory of a session's server over many generations that are asked for by HTTP.

    python -m analysis.cost.explore_memory [--model organism] [--generations 200] [--memory-gb 0.02] [--new-tokens 100]

The resident memory of the process after every twentieth of the generations (garbage collected), and the keys and values
of branches that it keeps, beside their limit. Each generation is a branch of its own at temperature 1, every fifth one
a fork with a random control; the session is saved, as it always is. A page is open all the while and reads every event.
The slope is that of a line through the second half: by then the limit is reached.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from safekey_interp.cli.shared import quiet_libraries
from safekey_interp.exploration.exploration_session import Session
from safekey_interp.exploration.web.session_server import SessionServer
from safekey_interp.models.model import load
from safekey_interp.models.organism import read_shipped


class Page:
    """An open page: its stream of events, and the requests that it makes."""

    def __init__(self, address: str) -> None:
        self._root, self._query = address.split("?")
        self._events = urlopen(f"{self._root}events?{self._query}")
        self._tab = self.until(lambda message: message["type"] == "session")["tab"]

    def until(self, is_it: Callable[[Any], bool]) -> Any:
        """The next event for which this holds."""
        for line in self._events:
            if line.startswith(b"data: ") and is_it(message := json.loads(line[6:])):
                return message
        raise RuntimeError("the server ended")

    def ask(self, name: str, **body: Any) -> Any:
        """The answer to a request."""
        asked = Request(f"{self._root}api/{name}?{self._query}", json.dumps(body).encode(), {"X-Tab": self._tab})
        with urlopen(asked) as reply:
            return json.load(reply)

    def written(self, name: str, **body: Any) -> str:
        """The first of new branches, once all are written."""
        branches = self.ask(name, **body)["branches"]
        left = set(branches)
        while left:
            left.discard(self.until(lambda message: message["type"] in ("ended", "failed"))["branch"])
        return branches[0]


def resident() -> float:
    """Memory of this process, MB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1e3


def main() -> None:
    """Measure, and print a line for every twentieth of the generations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="organism")
    parser.add_argument("--generations", type=int, default=200)
    parser.add_argument("--memory-gb", type=float, default=0.02, help="limit of the branches' keys and values")
    parser.add_argument("--new-tokens", type=int, default=100)
    options = parser.parse_args()
    quiet_libraries()
    prompts = list(dict.fromkeys(trace.prompt for trace in read_shipped()))
    with tempfile.TemporaryDirectory() as made:
        session = Session(load(options.model), out=Path(made) / "session", memory_gb=options.memory_gb)
        server, is_ready = SessionServer(), threading.Event()
        thread = threading.Thread(target=server.run, args=[session, lambda _: is_ready.set()])
        thread.start()
        is_ready.wait()
        page, last, sizes = Page(server.address), "", []
        for number in range(1, options.generations + 1):
            if number % 5:
                asked = {"prompt": prompts[number % len(prompts)], "seed": number, "temperature": 1.0}
                last = page.written("start", **asked, max_new_tokens=options.new_tokens)
            else:
                page.written("fork", branch=last, edits=[{"kind": "hide", "span": "prompt", "from_": "generated"}])
            gc.collect()
            kept = [state.n_bytes for state in session._tree.states() if state.n_bytes]
            sizes.append((number, resident(), sum(kept) / 1e6, len(kept)))
            if number % max(1, options.generations // 20) == 0:
                print("after {} generations: {:.0f} MB; {:.1f} MB of keys and values, {} branches".format(*sizes[-1]))
        server.stop()
        thread.join()
        session.close()
    late = np.array(sizes[len(sizes) // 2 :])
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
    print(
        f"{options.model}: {slope * 1e3:.0f} KB a generation over the second half; keys and values at most "
        f"{max(size[2] for size in sizes):.1f} MB, limit {options.memory_gb * 1e3:.0f} MB"
    )


if __name__ == "__main__":
    main()
