"""The rows that Guard asks the model about beyond a caller's own: which calls carry them, and whose answer is whose.

Answers to views (and to a purified standby) are wanted as soon as the caller's own. Where the model batches and its
limit allows, they ride: one call with the caller's rows first, so that the model runs once; what comes back is cut,
the caller gets his rows of every output and nothing else. Elsewhere they go in calls beside the original one. Where
the answer does not wait for them, they never ride, and are packed into as few calls as the limit allows.

Rows can be told apart where every input carries data and has the query's rows as its first axis. Elsewhere, and where
the model does not batch, each view is a call with all of the query's rows, in which it replaces some.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from guard.profile import Profile
from guard.types import Array, Batching, Bools, Decision
from guard.wire import messages, rows
from guard.wire.images import Format, encode_images
from guard.wire.messages import Inference
from guard.wire.open_inference_pb2 import ModelInferRequest


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One call: the caller's rows (`own`), those of a purified standby, and those of some views, in this order.

    views:  positions in `Decision.views`.
    each:   rows of one view in this call.
    wanted: (each,) those that the view is of; None: all.
    """

    body: bytes
    views: tuple[int, ...]
    each: int
    wanted: Bools | None = None
    own: int = 0
    standby: int = 0

    @property
    def total(self) -> int:
        """Rows of the call."""
        return self.own + self.extra

    @property
    def extra(self) -> int:
        """Rows that are not the caller's."""
        return self.standby + len(self.views) * self.each

    def parts(self, y: Array) -> Iterator[tuple[int, Array]]:
        """Each view's rows of an output, by its position."""
        for index, view in enumerate(self.views):
            start = self.own + self.standby + index * self.each
            rows = y[start : start + self.each]
            yield view, rows if self.wanted is None else rows[self.wanted]


@dataclass(frozen=True)
class Asking:
    """What it takes to write the requests of one decision's extra rows.

    forward:   the request that goes up in the caller's name.
    formats:   of encoded images, one a row; None elsewhere.
    max_bytes: no call that carries more than one view, or rides, is to be much larger.
    """

    inference: Inference
    profile: Profile
    decision: Decision
    forward: bytes
    formats: tuple[Format, ...] | None
    max_bytes: int

    @property
    def quiet(self) -> bool:
        """Whether nothing may be asked: each further call would move a state, or get any number of answers."""
        batching = self.profile.batching
        return self.inference.sequence or (batching is not None and (batching.stateful or batching.decoupled))

    def replaced(self, x: Array) -> bytes:
        """The caller's request with another inspected input of as many rows. Raises ValueError."""
        return messages.replace_input(self.inference, self._name, self._sent(x, self._all))

    def ride(self) -> Ask | None:
        """Everything in one call; None where that cannot be. Raises ValueError."""
        standby, each = self.decision.standby, len(self._rows)
        extra = len(self.decision.views) * each + (0 if standby is None else self._count)
        if extra == 0 or not self._told_apart or not self._fits(self._count + extra):
            return None
        wanted, lacking = messages.want_output(self.forward, self.profile.output_name)
        if lacking or wanted is not self.forward:  # the answer would hold what the caller did not ask for
            return None
        parts = [] if standby is None else [self._part(standby, self._all)]
        parts += [self._part(view, self._rows) for view in self.decision.views]
        body = rows.stack(self._message(self.forward), parts, behind=True)
        positions = tuple(range(len(self.decision.views)))
        return Ask(body, positions, each, own=self._count, standby=extra - len(positions) * each)

    def beside(self, *, packed: bool) -> tuple[Ask, ...]:
        """The views in calls of their own: one each, or as few as the limit allows. Raises ValueError."""
        count, size = len(self.decision.views), 1
        if packed and self._told_apart and len(self._rows):
            while size < count and self._fits((size + 1) * len(self._rows)):
                size += 1
        return tuple(self._ask(tuple(range(start, min(start + size, count)))) for start in range(0, count, size))

    def alone(self, ask: Ask) -> tuple[Ask, ...]:
        """The views of a packed call in calls of their own. Raises ValueError."""
        return tuple(self._ask((view,)) for view in ask.views)

    def _ask(self, views: tuple[int, ...]) -> Ask:
        """One call with the rows of these views."""
        if self._told_apart:
            parts = [self._part(self.decision.views[view], self._rows) for view in views]
            return Ask(rows.stack(self._base, parts, behind=False), views, len(self._rows))
        (view,) = views
        x = np.array(self.decision.query.x)
        x[self._rows] = self.decision.views[view]
        body = messages.want_output(self.replaced(x), self.profile.output_name)[0]
        return Ask(body, views, self._count, wanted=self.decision.view_rows)

    @property
    def _name(self) -> str:
        return self.profile.input_name

    @property
    def _count(self) -> int:
        return len(self.decision.query.x)

    @cached_property
    def _all(self) -> NDArray[np.intp]:
        return np.arange(self._count)

    @cached_property
    def _rows(self) -> NDArray[np.intp]:
        """The rows that views are of."""
        return np.flatnonzero(self.decision.view_rows)

    @cached_property
    def _told_apart(self) -> bool:
        inference, batching = self.inference, self.profile.batching or Batching(0)
        carried = len(inference.tensors) == len(inference.message.inputs)  # else some are in shared memory
        return batching.takes_more and carried and inference.rows == self._count

    def _fits(self, total: int) -> bool:
        """Whether one call may have so many rows."""
        most = None if self.profile.batching is None else self.profile.batching.max_rows
        size = len(self.forward) * total / max(self._count, 1)
        return (most is None or total <= most) and size <= self.max_bytes

    @cached_property
    def _base(self) -> ModelInferRequest:
        """What the requests of views have in common."""
        return self._message(messages.want_output(self.forward, self.profile.output_name)[0])

    def _message(self, body: bytes) -> ModelInferRequest:
        return ModelInferRequest.FromString(body)  # the inference's own has no contents

    def _part(self, x: Array, chosen: NDArray[np.intp]) -> Mapping[str, Array]:
        """Every input for the rows of one view."""
        tensors = self.inference.tensors
        part = {name: array[chosen] for name, array in tensors.items() if name != self._name}
        return part | {self._name: self._sent(x, chosen)}

    def _sent(self, x: Array, chosen: NDArray[np.intp]) -> Array:
        """The inspected input for these rows of the query, as it is sent."""
        if self.formats is None:
            return x
        made = np.empty(len(x), dtype=object)
        made[:] = encode_images(x, tuple(self.formats[row] for row in chosen))
        return made.reshape(len(x), *self.inference.tensors[self._name].shape[1:])
