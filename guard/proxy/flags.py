"""Flagged rows of a call that came through the proxy. Array work only, run in worker threads."""

from collections.abc import Sequence
from dataclasses import replace

from guard.flagging import Content, flag
from guard.profile import Profile
from guard.proxy.case import Plan, sha256_of
from guard.settings import Quarantine
from guard.types import Finding
from guard.wire.messages import Inference


def flagged(
    inference: Inference, profile: Profile, made: Plan, findings: Sequence[Finding], rule: Quarantine, *, keep: bool
) -> Plan:
    """The plan with what is flagged by now, and the digest of the request where anything is."""
    decision = made.decision
    encoded = profile.space.layout == "encoded"
    content = Content(inference.tensors[profile.input_name] if encoded else decision.query.x, profile)
    flags = flag(content, findings, rule, enforced=decision.enforced, keep=keep, known=made.flags)
    if not flags.rows:
        return made
    return replace(made, flags=flags, sha256=made.sha256 or sha256_of(inference.received))
