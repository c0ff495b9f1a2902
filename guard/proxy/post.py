"""Where a worker stands among the others of one Guard, and what is in the directory that they share with their parent.

The directory is the user's alone (0700): what is reached through it needs no token.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Post:
    """number: from 0 on. address: HOST:PORT that all workers share."""

    directory: Path
    number: int
    address: str

    @property
    def name(self) -> str:
        """Of its counts."""
        return f"w{self.number}"

    @property
    def socket(self) -> str:
        """Where its parent asks it."""
        return f"unix:{self.directory / self.name}.sock"

    @property
    def turn(self) -> Path:
        """Locked by whoever writes to the audit log."""
        return self.directory / "turn"

    @property
    def settings(self) -> Path:
        """The settings in force, as the parent read them."""
        return self.directory / "settings.json"

    @property
    def metrics(self) -> Path:
        """The counts of all."""
        return self.directory / "metrics"
