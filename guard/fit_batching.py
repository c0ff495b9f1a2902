"""Stages that ask the model again for every input, and models that must not be asked again."""

from typing import Any

from guard.types import Batching, ViewDetector, VotingPurifier


def refuse(impl: Any, batching: Batching) -> str | None:
    """Why a working stage cannot serve a model that takes rows like that; None where it can."""
    if not isinstance(impl, ViewDetector | VotingPurifier):
        return None
    if batching.stateful:
        return "it asks the model again for every input, which would move the state of a sequence model"
    if batching.decoupled:
        return "it asks the model again for every input, and a decoupled model gives any number of answers to a call"
    return None
