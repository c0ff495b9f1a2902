"""One inspected request: what is read of it, decided on it, and sent for it. Array work only, run in worker threads.

The original bytes are forwarded as they came unless the policy replaces the input. Further inputs (views, a purified
standby) are calls of their own beside it, all rows of one view in one call, the other inputs unchanged.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from guard.engine import Engine
from guard.profile import Profile
from guard.settings import Limits, Model
from guard.types import Answer, Array, Conclusion, Decision, InvalidQuery, Query, Sketches
from guard.wire import messages
from guard.wire.images import Format, decode_images, encode_images
from guard.wire.messages import Inference, InvalidAnswer


class UnknownForm(ValueError):
    """The answer must be changed, and cannot be."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen before anything is decided. formats: of encoded images."""

    query: Query
    sketches: Sketches
    formats: tuple[Format, ...] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, and the requests that carry it out.

    forward:  what goes to the upstream in the request's place.
    views:    one request a view.
    standby:  the purified request, in case a view detector fires.
    probe:    the request with the inspected output added, where the caller did not ask for it and views are compared.
    sha256:   of the body as it came; empty where no event is made.
    """

    decision: Decision
    forward: bytes
    views: tuple[bytes, ...] = ()
    standby: bytes | None = None
    probe: bytes | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Extra:
    """The answers' bodies to the further requests; None where a call failed or was not made."""

    views: tuple[bytes | None, ...] = ()
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


def plan(inference: Inference, profile: Profile, looked: Looked, decision: Decision, *, digest: bool) -> Plan:
    """The requests that carry out a decision. Raises ValueError where an input cannot be written."""

    def request(x: Array) -> bytes:
        return messages.replace_input(inference, profile.input_name, _as_sent(x, looked, inference, profile.input_name))

    views: tuple[bytes, ...] = ()
    probe = standby = None
    forward = inference.body if decision.x is None else request(decision.x)
    if not inference.sequence:  # each further call would move the model's state
        wanted, added = messages.want_output(forward, profile.output_name)
        probe = wanted if added and decision.views else None
        views = tuple(messages.want_output(request(view), profile.output_name)[0] for view in decision.views)
        standby = None if decision.standby is None else request(decision.standby)
    return Plan(decision, forward, views, standby, probe, sha256_of(inference.body) if digest else "")


def _as_sent(x: Array, looked: Looked, inference: Inference, name: str) -> Array:
    if looked.formats is None:
        return x
    rows = np.empty(len(x), dtype=object)
    rows[:] = encode_images(x, looked.formats)
    return rows.reshape(inference.tensors[name].shape)


def conclude(engine: Engine, profile: Profile, made: Plan, original: bytes | None, extra: Extra) -> Conclusion:
    """What the answers add. Answers that are missing or of another form are the engine's to judge."""
    y = _output(original, profile)
    if y is None:
        y = _output(extra.probe, profile)
    standby = _output(extra.standby, profile)
    if standby is None and extra.standby is not None and made.probe is not None:
        standby = y  # it answered, without the output that nobody asked for: nothing of it will be changed
    views = tuple(_output(view, profile) for view in extra.views)
    missing = (None,) * (len(made.decision.views) - len(views))
    return engine.conclude(made.decision, Answer(y, (*views, *missing), standby))


def _output(body: bytes | None, profile: Profile) -> Array | None:
    """(N, C) of the inspected output; None where there is none that can be read."""
    if body is None:
        return None
    try:
        y = messages.parse_response(body).get(profile.output_name)
    except InvalidAnswer:
        return None
    return y if y is not None and y.ndim >= 1 and y.dtype != object else None


def protect(body: bytes, y: Array | None, profile: Profile) -> bytes:
    """The answer with another output, where it has that output at all. Raises UnknownForm."""
    if y is None:
        return body
    try:
        if profile.output_name not in messages.parse_response(body):
            return body
        return messages.replace_output(body, profile.output_name, y)
    except ValueError as error:
        raise UnknownForm from error


def sha256_of(body: bytes) -> str:
    """Of the message as it came in, hex."""
    return hashlib.sha256(body).hexdigest()
