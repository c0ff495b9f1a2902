"""One inspected request: what is read of it, decided on it, and sent for it. Array work only, run in worker threads.

The original bytes are forwarded as they came unless the policy replaces the input, or rows of Guard's own ride with
the caller's (`guard.proxy.extra`).
"""

import hashlib
from dataclasses import dataclass, replace

from guard.engine import Engine
from guard.flagging import Flags
from guard.profile import Profile
from guard.proxy.extra import Ask, Asking
from guard.settings import Limits, Model
from guard.types import Answer, Array, Conclusion, Decision, InvalidQuery, Query, Sketches
from guard.wire import classes, messages, rows
from guard.wire.images import Format, decode_images
from guard.wire.messages import Inference, InvalidAnswer


class UnknownForm(ValueError):
    """The answer must be changed, and cannot be."""


_UNFLAGGED = Flags()


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen before anything is decided. formats: of encoded images."""

    query: Query
    sketches: Sketches
    formats: tuple[Format, ...] | None


@dataclass(frozen=True, slots=True)
class How:
    """What is known of a decision's surroundings.

    may_ride:  rows may be added to the caller's.
    reads:     a detector reads the answer to the caller's own rows.
    max_bytes: of a call with rows of several inputs, about.
    """

    may_ride: bool
    reads: bool
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, and the requests that carry it out.

    forward:  what goes to the upstream in the request's place.
    ride:     the same with every row of Guard's own behind it; then there are none of the following.
    views:    calls with the views' rows.
    standby:  the purified request, in case a detector fires.
    probe:    the request with the inspected output added, where the caller did not ask for it and a detector reads it.
    asking:   writes further requests; None where there are none.
    sha256:   of the body as it came; empty where no event is made.
    flags:    the rows that were flagged, as far as is known.
    """

    decision: Decision
    forward: bytes
    ride: Ask | None = None
    views: tuple[Ask, ...] = ()
    standby: bytes | None = None
    probe: bytes | None = None
    asking: Asking | None = None
    sha256: str = ""
    flags: Flags = _UNFLAGGED

    @property
    def rows(self) -> int:
        """The caller's."""
        return len(self.decision.query.x)


@dataclass(frozen=True, slots=True)
class Extra:
    """The answers' bodies to the further requests, without those that failed or were not made."""

    views: tuple[tuple[Ask, bytes], ...] = ()
    standby: bytes | None = None
    probe: bytes | None = None


def look(inference: Inference, profile: Profile, model: Model, limits: Limits, engine: Engine, query: Query) -> Looked:
    """The inspected input, in unit form and sketched; `query.x` is filled in here. Raises InvalidQuery."""
    x, formats = inference.tensors[profile.input_name], None
    space = profile.space
    if space.layout == "encoded" and space.image_shape is not None:
        images = model.images
        x, formats = decode_images(
            x, space.image_shape, images.max_pixels, images.max_bytes, max_elements=limits.max_elements
        )
    if x.ndim == 0 or x.dtype == object:
        raise InvalidQuery(f"input {profile.input_name!r} has no rows to inspect")
    query = engine.admit(replace(query, x=x))
    return Looked(query, engine.sketch(query), formats)


def plan(inference: Inference, profile: Profile, looked: Looked, decision: Decision, how: How, *, digest: bool) -> Plan:
    """The requests that carry out a decision. Raises ValueError where an input cannot be written."""
    asking = Asking(inference, profile, decision, inference.body, looked.formats, how.max_bytes)
    if decision.x is not None:
        forward = asking.replaced(decision.x)
        asking = Asking(inference, profile, decision, forward, looked.formats, how.max_bytes)
    made = Plan(decision, asking.forward, sha256=sha256_of(inference.received) if digest else "")
    if asking.quiet:
        return made
    if not (decision.views or how.reads) and decision.standby is None:
        return made  # nothing is asked
    ride = asking.ride() if how.may_ride and decision.waits else None
    made = replace(made, asking=asking, ride=ride)
    return made if ride else beside(made, reads=how.reads)


def beside(made: Plan, *, reads: bool) -> Plan:
    """The plan with calls of their own for Guard's rows. `reads`: a detector reads the caller's answer."""
    decision, asking = made.decision, made.asking
    if asking is None:
        return made
    wanted, added = messages.want_output(made.forward, asking.profile.output_name)
    lacking = added and asking.inference.classes is None  # classes are read
    return replace(
        made,
        ride=None,
        views=asking.beside(packed=not decision.waits),
        standby=None if decision.standby is None else asking.replaced(decision.standby),
        probe=wanted if lacking and (decision.views or reads) else None,
    )


def standby_of(made: Plan) -> bytes | None:
    """The purified request, wherever its rows went. Raises ValueError."""
    if made.standby is None and made.asking is not None and made.decision.standby is not None:
        return made.asking.replaced(made.decision.standby)
    return made.standby


def split(body: bytes, ride: Ask) -> tuple[bytes, bytes | None]:
    """The caller's answer, and the standby's where there is one, out of the answer to both. Raises InvalidAnswer."""
    own, total = ride.own, ride.total
    standby = rows.cut(body, own, own + ride.standby, total) if ride.standby else None
    return rows.cut(body, 0, own, total), standby


def conclude(engine: Engine, profile: Profile, made: Plan, original: bytes | None, extra: Extra) -> Conclusion:
    """What the answers add. Answers that are missing or of another form are the engine's to judge."""
    y = _output(original, profile)
    if y is None:
        y = _output(extra.probe, profile)
    views: list[Array | None] = [None] * len(made.decision.views)
    for ask, body in extra.views:
        answer = _output(body, profile)
        if answer is None or len(answer) != ask.total:
            continue
        y = answer[: ask.own] if y is None and ask.own else y
        for view, part in ask.parts(answer):
            views[view] = part
    standby = _output(extra.standby, profile)
    if standby is None and extra.standby is not None and made.probe is not None:
        standby = y  # it answered, without the output that nobody asked for: nothing of it will be changed
    return engine.conclude(made.decision, Answer(y, tuple(views), standby))


def _output(body: bytes | None, profile: Profile) -> Array | None:
    """(N, C) of the inspected output, in numbers or in classes; None where there is none that can be read."""
    if body is None:
        return None
    try:
        y = messages.parse_response(body).get(profile.output_name)
    except InvalidAnswer:
        return None
    if y is not None and y.dtype == object and profile.meaning != "labels":
        return classes.read(y, profile.classes, profile.output_datatype)
    return y if y is not None and y.ndim >= 1 and y.dtype != object else None


def protect(body: bytes, y: Array | None, profile: Profile) -> bytes:
    """The answer with another output, where it has that output at all. Raises UnknownForm."""
    if y is None:
        return body
    try:
        output = messages.parse_response(body).get(profile.output_name)
        if output is None:
            return body
        if output.dtype == object:
            return classes.write(body, profile.output_name, y, profile.output_datatype)
        return messages.replace_output(body, profile.output_name, y)
    except ValueError as error:
        raise UnknownForm from error


def widened(inference: Inference, profile: Profile | None) -> Inference:
    """The request with all classes of the inspected output, where it asks for some and all can be read."""
    if profile is None or profile.meaning == "labels":
        return inference
    batching = profile.batching
    if batching is not None and batching.max_rows == 0 and inference.rows != 1:  # Triton ranks all rows as one
        return inference
    return classes.widen(inference, profile.output_name, profile.classes)


def narrowed(forward: bytes, inference: Inference, profile: Profile) -> bytes:
    """The request as its caller wrote it: with no more classes than he asked for."""
    if inference.came is None or inference.classes is None or forward is inference.came:
        return forward
    whole = forward is inference.body
    return inference.came if whole else classes.narrow(forward, profile.output_name, inference.classes)


def cut(body: bytes, inference: Inference, profile: Profile) -> bytes:
    """The answer with no more classes than its caller asked for. Raises UnknownForm where these are not known."""
    if inference.classes is None:
        return body
    name, datatype = profile.output_name, profile.output_datatype
    try:
        return classes.cut(
            body, name, inference.classes, classes=profile.classes, datatype=datatype, rows=inference.rows
        )
    except InvalidAnswer as error:
        raise UnknownForm from error


def sha256_of(body: bytes) -> str:
    """Of the message as it came in, hex."""
    return hashlib.sha256(body).hexdigest()
