"""A verdict on tensors that are not forwarded: `Inspect` of Guard's own API.

For servers that speak another protocol, and for tests. The caller of this API asks the served model herself: where view
detectors want the model's answers on further inputs, the response carries these, and a second call brings the answers.
Views depend on the input alone, so nothing is kept between the two calls; with `remember` in both of them, the second
counts as a retry.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from guard.engine import Engine
from guard.profile import Profile
from guard.proxy.admin_messages import ACTIONS, array_of, finding_of, tensor_of
from guard.settings import Limits, Model
from guard.types import Action, Answer, Array, Bools, Conclusion, Decision, InvalidQuery, Query, Store
from guard.wire.guard.v1 import guard_pb2 as pb
from guard.wire.images import Format, decode_images, encode_images

T = TypeVar("T")

MAX_CALLER = 256
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Input:
    """The inspected tensor: `x` in the model's layout, and how to write others like it."""

    x: Array
    like: Array
    name: str
    datatype: str
    formats: tuple[Format, ...] | None = None

    def tensor(self, x: Array, chosen: Bools | None = None) -> pb.Tensor:
        """Another input, as the model takes it; `chosen`: (N,) the rows that it has, None: all."""
        if self.formats is None:
            return tensor_of(self.name, x, self.datatype)
        formats = [kind for row, kind in enumerate(self.formats) if chosen is None or chosen[row]]
        rows = np.empty(len(x), dtype=object)
        rows[:] = encode_images(x, formats)
        return tensor_of(self.name, rows.reshape(len(x), *self.like.shape[1:]), self.datatype)


def read_input(tensor: pb.Tensor, profile: Profile, model: Model, limits: Limits) -> Input:
    """Raises InvalidQuery where it is not what the model takes."""
    if tensor.name not in {"", profile.input_name}:
        raise InvalidQuery(f"the inspected input is {profile.input_name!r}")
    if tensor.datatype != profile.datatype:
        raise InvalidQuery(f"input {profile.input_name!r} has datatype {profile.datatype}")
    array = array_of(tensor, limits.max_elements)
    if array.ndim == 0 or len(array) > limits.max_rows:
        raise InvalidQuery(f"an input has between 0 and {limits.max_rows} rows")
    space = profile.space
    if space.layout != "encoded" or space.image_shape is None:
        return Input(array, array, profile.input_name, tensor.datatype)
    images = model.images
    x, formats = decode_images(
        array, space.image_shape, images.max_pixels, images.max_bytes, max_elements=limits.max_elements
    )
    return Input(x, array, profile.input_name, tensor.datatype, formats)


@dataclass(frozen=True, slots=True)
class Inspection:
    """One call's fixed surroundings. `compute` runs array work where it does not hold up other calls."""

    engine: Engine
    profile: Profile
    model: Model
    limits: Limits
    store: Store
    compute: Callable[[Callable[[], T]], Awaitable[T]]

    async def run(
        self, request: pb.InspectRequest, decision_id: str, now: float
    ) -> tuple[Conclusion, pb.InspectResponse]:
        """Raises InvalidQuery."""
        if len(request.caller) > MAX_CALLER:
            raise InvalidQuery(f"a caller has at most {MAX_CALLER} characters")
        caller, scope = request.caller or ANONYMOUS, self.model.name
        given = await self.compute(lambda: read_input(request.input, self.profile, self.model, self.limits))
        raw = Query(given.x, caller, scope, decision_id, now=now)
        query = await self.compute(lambda: self.engine.admit(raw))
        sketches = await self.compute(lambda: self.engine.sketch(query))
        history = await self.store.exchange(scope, caller, (), sketches, now, remember=request.remember)
        decision = await self.compute(lambda: self.engine.decide(query, history, sketches))
        if request.remember and not decision.update.empty:
            await self.store.credit(scope, caller, (), decision.update, now)
        answer = self._answer(request, decision)
        conclusion = await self.compute(lambda: self._conclude(decision, answer))
        if request.remember and not conclusion.update.empty:
            await self.store.credit(scope, caller, (), conclusion.update, now)
        return conclusion, await self.compute(lambda: self._respond(request, given, decision, conclusion))

    def _answer(self, request: pb.InspectRequest, decision: Decision) -> Answer | None:
        """What the caller brings of the model's answers; None: nothing."""
        if not request.HasField("answer"):
            if request.view_answers:
                raise InvalidQuery("answers on views need the answer on the input beside them")
            return None
        if request.view_answers and decision.views and len(request.view_answers) != len(decision.views):
            raise InvalidQuery(
                f"there are {len(decision.views)} views, and {len(request.view_answers)} answers on them"
            )
        y = array_of(request.answer, self.limits.max_elements)
        views = tuple(array_of(view, self.limits.max_elements) for view in request.view_answers)
        expected = (int(decision.view_rows.sum()) if decision.views else len(y), *y.shape[1:])
        if any(view.shape != expected for view in views):
            raise InvalidQuery("answers on views have the shape of the answer on the input, with the rows of the views")
        return Answer(
            y, views[: len(decision.views)], standby=y
        )  # the standby's place is taken: its own answer is for the caller to ask

    def _conclude(self, decision: Decision, answer: Answer | None) -> Conclusion:
        if answer is None:
            return Conclusion(decision, decision.action, decision.would_be, decision.findings)
        if not answer.views:  # they come with the second call: no failure of the view detectors
            decision = replace(decision, views=(), view_counts={})
        return self.engine.conclude(decision, answer)

    def _respond(
        self, request: pb.InspectRequest, given: Input, decision: Decision, conclusion: Conclusion
    ) -> pb.InspectResponse:
        response = pb.InspectResponse(
            decision_id=decision.query.decision_id,
            action=ACTIONS[conclusion.action],
            would_be=ACTIONS[conclusion.would_be],
            findings=[finding_of(finding) for finding in conclusion.findings],
        )
        if conclusion.action is Action.DENY:
            return response
        purified = decision.standby if conclusion.use_standby else decision.x
        if purified is not None:
            response.purified.CopyFrom(given.tensor(purified))
        if conclusion.y is not None and not conclusion.use_standby:
            response.answer.CopyFrom(tensor_of(request.answer.name, conclusion.y, request.answer.datatype))
        if not request.view_answers:
            response.views.extend(given.tensor(view, decision.view_rows) for view in decision.views)
            if decision.views and not decision.view_rows.all():
                response.view_rows.extend(np.flatnonzero(decision.view_rows).tolist())
        return response
