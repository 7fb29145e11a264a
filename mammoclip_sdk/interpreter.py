"""How a child process starts that runs this package: one rule for all that start one."""

from __future__ import annotations

import json
import os
import sys
from multiprocessing import spawn

_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from mammoclip_sdk.{module} import serve; serve()"
)


def child_command(module: str) -> list[str] | None:
    """Return what starts a Python that calls ``serve`` of a module; None where none is known.

    The interpreter is that of ``multiprocessing``: this one, or what
    ``multiprocessing.set_executable`` named. A frozen application's own executable is no Python,
    and an embedding one may have none. The child finds this package where the parent found it, and
    never beside the caller's own script, which it must not run.
    """
    executable = os.fsdecode(spawn.get_executable() or "")
    if not executable or (getattr(sys, "frozen", False) and executable == sys.executable):
        return None
    return [executable, "-P", "-c", _CODE.format(module=module), json.dumps(sys.path)]
