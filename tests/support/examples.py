"""How many examples a property is tried with: a fifth in `make test`, all of them with TEST_EXAMPLES=all, as in CI."""

import os

from hypothesis import settings

ALL_EXAMPLES = os.environ.get("TEST_EXAMPLES") == "all"


def examples(count: int) -> settings:
    """Return settings for so many examples of any duration."""
    return settings(max_examples=count if ALL_EXAMPLES else max(count // 5, 5), deadline=None)
