"""A graph run node by node."""

from __future__ import annotations

from typing import Any

from torch import fx


class Interpreter(fx.Interpreter):
    """torch.fx's, without its progress bar: even one that shows nothing starts a thread of tqdm's, which stays.

    Errors are those that the nodes raise, without torch.fx's account of where.
    """

    def run(self, *args: Any, **_: Any) -> Any:
        self.env, self.args_iter = {}, iter(args)
        for node in self.graph.nodes:
            self.env[node] = value = self.run_node(node)
            for read in self.user_to_last_uses.get(node, ()):
                del self.env[read]
            if node.op == "output":
                return value
        return None
