"""The one exception for what a user can fix, and the nearest-match hint that its messages use.

The command line prints a `UserError` without a traceback and exits with a non-zero code.
Everything else that goes wrong is a defect of dpmed and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message names the value or file, what is allowed, and what to do next."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A hint that starts with a space, or an empty string when nothing is close.

    Example:
        >>> did_you_mean("privcy", ["privacy", "data"])
        " Did you mean 'privacy'?"
    """
    matches = difflib.get_close_matches(name, [str(choice) for choice in choices], n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
