"""Guard's own words as messages of its own API: tensors, findings, decisions, status."""

from collections.abc import Mapping
from typing import Protocol

import guard
from guard import config
from guard.audit import Event
from guard.drift import Drift, Report
from guard.engine import Engine
from guard.profile import Profile
from guard.proxy.seam import Upstream
from guard.settings import Model, Settings
from guard.types import Action, Array, Finding, InvalidQuery, Mode
from guard.wire.guard.v1 import guard_pb2 as pb
from guard.wire.tensors import decode_array, encode_array

ACTIONS: Mapping[Action, pb.Action] = {
    Action.ALLOW: pb.ACTION_ALLOW,
    Action.PURIFY: pb.ACTION_PURIFY,
    Action.DEGRADE: pb.ACTION_DEGRADE,
    Action.DELAY: pb.ACTION_DELAY,
    Action.THROTTLE: pb.ACTION_THROTTLE,
    Action.CHALLENGE: pb.ACTION_CHALLENGE,
    Action.DENY: pb.ACTION_DENY,
}
MODES: Mapping[Mode, pb.Mode] = {
    Mode.OFF: pb.MODE_OFF,
    Mode.SHADOW: pb.MODE_SHADOW,
    Mode.ENFORCE: pb.MODE_ENFORCE,
}


class Guarded(Protocol):
    """One guarded model, as far as the API shows and uses it."""

    @property
    def settings(self) -> Model:
        """Its settings."""
        ...

    @property
    def upstream(self) -> Upstream:
        """Its server."""
        ...

    @property
    def engine(self) -> Engine | None:
        """Its defence, None where there is none, or it cannot be used."""
        ...

    @property
    def profile(self) -> Profile | None:
        """What was learned of it."""
        ...

    @property
    def mismatch(self) -> str | None:
        """Why the profile is not in use; None where it is, or there is none."""
        ...

    @property
    def drift(self) -> Drift:
        """Whether its traffic still is like the fit's clean inputs."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it takes calls."""
        ...

    @property
    def reason(self) -> str:
        """Why it does not, or why the profile is not in use."""
        ...


def array_of(tensor: pb.Tensor, max_elements: int) -> Array:
    """Raises InvalidQuery where shape and bytes do not agree."""
    try:
        return decode_array(tensor.datatype, tuple(tensor.shape), tensor.raw, max_elements=max_elements)
    except InvalidQuery as error:
        raise InvalidQuery(f"{tensor.name or 'tensor'}: {error}") from None


def tensor_of(name: str, array: Array, datatype: str) -> pb.Tensor:
    """The raw form of an array."""
    return pb.Tensor(name=name, datatype=datatype, shape=array.shape, raw=encode_array(array, datatype))


def finding_of(finding: Finding) -> pb.Finding:
    """The same words."""
    return pb.Finding(
        stage=finding.stage,
        kind=finding.kind,
        mode=MODES[finding.mode],
        scores=finding.scores,
        p_values=finding.p_values,
        threshold=finding.threshold,
        fired=finding.fired,
        error=finding.error or "",
    )


def watched(event: Event, lost: int) -> pb.WatchResponse:
    """One decision for a reader who has lost that many."""
    response = pb.WatchResponse(
        decision_id=event.decision_id,
        model=event.model,
        caller=event.caller,
        action=ACTIONS[event.action],
        would_be=ACTIONS[event.would_be],
        findings=[finding_of(finding) for finding in event.findings],
        lost=lost,
    )
    response.time.FromMicroseconds(round(event.time_unix * 1e6))
    return response


def _drift(report: Report | None) -> pb.Drift | None:
    if report is None:
        return None
    return pb.Drift(
        rows=report.rows,
        distance=report.distance,
        expected_rate=report.expected,
        observed_rate=report.observed,
        alarm=report.alarm,
    )


def status(settings: Settings, models: Mapping[str, Guarded], started: float) -> pb.StatusResponse:
    """started: seconds since 1970."""
    response = pb.StatusResponse(
        version=guard.__version__,
        config_digest=config.digest(settings),
        models=[_model(name, model) for name, model in models.items()],
    )
    response.started.FromMicroseconds(round(started * 1e6))
    return response


def _model(name: str, model: Guarded) -> pb.ModelStatus:
    stages = () if model.engine is None else model.engine.stages
    return pb.ModelStatus(
        name=name,
        upstream=model.upstream.name,
        mode=MODES[model.settings.mode],
        profile_digest="" if model.profile is None else model.profile.digest,
        ready=model.ready,
        reason=model.reason,
        false_positive_rate=model.settings.false_positive_rate,
        stages=[
            pb.StageStatus(
                name=stage.name,
                kind=stage.kind,
                mode=MODES[stage.mode],
                calibration_size=0 if stage.calibration is None else stage.calibration.scores.size,
                threshold=stage.threshold,
                drift=_drift(model.drift.reports.get(stage.name)) if stage.kind == "detector" else None,
            )
            for stage in stages
        ],
    )
