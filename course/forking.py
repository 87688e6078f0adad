"""A fork of this process that does one thing and ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def forked(body: Callable[[], int]) -> int:
    """The number of a new process, which ends with the status that `body` returns, or with 3 and a traceback."""
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
