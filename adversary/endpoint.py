"""Where and how an endpoint is asked."""

from dataclasses import dataclass
from typing import Literal

from adversary.form import Form, Layout
from adversary.tls import Tls

Headers = tuple[tuple[str, str], ...]
Meaning = Literal["auto", "logits", "probabilities", "labels"]


class OracleError(RuntimeError):
    """The endpoint cannot be asked, or failed otherwise than by refusing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What there is to know of it.

    input_name, output_name:      by default the model's only input and its first output.
    low, high, mean, std, layout: what the model's input wants to be; see `adversary.form`.
    identities:                   metadata that says who calls, one a pretended caller.
    tls:                          None: plain text.
    retries:                      how often a call is tried again that found nobody (UNAVAILABLE). Every try costs.
    """

    target: str
    model: str
    version: str = ""
    input_name: str = ""
    output_name: str = ""
    encoding: Literal["raw", "typed"] = "raw"
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout = "as_given"
    meaning: Meaning = "auto"
    identities: tuple[Headers, ...] = ((),)
    tls: Tls | None = None
    retries: int = 2
    timeout_s: float = 30.0

    @property
    def form(self) -> Form:
        """Raises ValueError."""
        return Form(self.low, self.high, self.mean, self.std, self.layout)
