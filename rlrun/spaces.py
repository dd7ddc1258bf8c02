"""The parts of an observation space."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces


def leaves_of(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The parts of a Dict space by key; any other space by the empty key."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
