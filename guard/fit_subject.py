"""The served model with the clean rows that `guard fit` asks it about: as they are sent, and as Guard looks at them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from guard.fit_clean import FitError
from guard.profile import Meaning, Space, as_probabilities, to_probabilities
from guard.proxy import ask
from guard.types import Array, Batching, Floats, ModelMetadata

Positions = NDArray[np.int64]
Formats = tuple[ask.Format, ...]


class Served(Protocol):
    """What is asked; `guard.proxy.ask.ServedModel` is one."""

    def metadata(self) -> ModelMetadata:
        """What the server says of the model."""
        ...

    def batching(self) -> Batching:
        """How it takes rows."""
        ...

    def answer(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Inputs by name -> outputs by name, rows in order."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One model's clean rows. `inputs`: by name, as they are sent; `batching`: how the model takes them."""

    served: Served
    input_name: str
    inputs: Mapping[str, Array]
    space: Space
    output_name: str
    meaning: Meaning
    batching: Batching = field(default_factory=Batching)

    @property
    def whole_numbers(self) -> bool:
        """Whether the inspected input is of whole numbers that are no pixels, such as token ids."""
        return not self.space.is_image and self.inputs[self.input_name].dtype.kind in "iub"

    def seen(self, rows: Positions) -> tuple[Array, Formats]:
        """These rows in the model's layout, encoded images decoded; and their formats."""
        x = self.inputs[self.input_name][rows]
        if self.space.layout == "encoded" and self.space.image_shape is not None:
            return ask.decode(x, self.space.image_shape)
        return x, ()

    def answer(self, rows: Positions, x: Array | None = None, formats: Formats = ()) -> Array:
        """The classification output for these rows, the inspected input replaced by `x` where there is one."""
        sent = {name: array[rows] for name, array in self.inputs.items()}
        if x is not None:
            sent[self.input_name] = ask.encode(x, formats, sent[self.input_name].shape) if formats else x
        answer = self.served.answer(sent)
        if self.output_name not in answer:
            raise FitError(f"an answer came without output {self.output_name!r}")
        return answer[self.output_name]

    def said(self, rows: Positions, classes: int, x: Array | None = None, formats: Formats = ()) -> Floats:
        """What monitors read of the answers: labels as rows of 0 and 1. Raises FitError."""
        try:
            return as_probabilities(self.answer(rows, x, formats), self.meaning, classes)
        except ValueError as error:
            raise FitError(f"output {self.output_name!r}: {error}") from None

    def probabilities(self, rows: Positions, x: Array | None = None, formats: Formats = ()) -> Floats:
        """The same as rows that sum to 1. Raises FitError."""
        try:
            return to_probabilities(self.answer(rows, x, formats), self.meaning)
        except ValueError as error:
            raise FitError(f"output {self.output_name!r}: {error}") from None
