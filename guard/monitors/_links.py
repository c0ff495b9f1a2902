"""Which links count: near, and not the next frame of a film."""

from guard.types import Link, Seen


def near(row: Seen, reach: float, explained: float) -> Link | None:
    """A row's link where it is within reach, and more than this share of the difference is unexplained."""
    link = row.link
    if link is None or row.match.duplicate or link.distance > reach or link.unexplained <= explained:
        return None
    return link


def kind(link: Link, explained: float) -> float:
    """How little motion explains, from 0 at `explained` to 1."""
    return (link.unexplained - explained) / (1.0 - explained) if explained < 1.0 else 1.0
