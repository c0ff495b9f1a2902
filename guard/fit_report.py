"""What `guard fit` shows: a table for people, the same as plain data for programs."""

import hashlib
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from guard.fit_measure import Measured, Rate
from guard.fit_profile import OWN, PART, FitResult
from guard.profile import Profile

CALLER_ALARM = 0.001  # the settings' default of `false_alarms_per_caller_month`


def as_data(result: FitResult, directory: str, digest: str) -> dict[str, Any]:
    """Plain data."""
    profile, measured = result.profile, result.measured
    return {
        "profile": directory,
        "digest": digest,
        "model": profile.metadata.name,
        "input": {
            "name": profile.input_name,
            "datatype": profile.datatype,
            "layout": profile.space.layout,
            "image_shape": profile.space.image_shape,
            "low": profile.space.low,
            "high": profile.space.high,
            "certain": profile.space.certain,
        },
        "output": {"name": profile.output_name, "meaning": profile.meaning, "classes": profile.classes},
        "clean": {"duplicates": result.duplicates} | dict(profile.notes),
        "false_positive_rate": _rate(measured.total) if measured else None,
        "stages": {
            key: {
                "options": dict(fit.options),
                "held_out": _rate(measured.stages[key]) if measured and key in measured.stages else None,
            }
            for key, fit in profile.stages.items()
        },
        "networks": {name: hashlib.sha256(raw).hexdigest() for name, raw in profile.networks.items()},
        "caller_p_values": measured.caller_p_values if measured else {},
        "skipped": dict(result.skipped),
        "warnings": list(warnings(result)),
    }


def _rate(rate: Rate) -> dict[str, Any]:
    return {"rate": rate.rate, "interval": list(rate.interval), "flagged": rate.flagged, "rows": rate.rows}


def warnings(result: FitResult) -> Iterator[str]:
    """What whoever fits should know."""
    space, measured, asked = result.profile.space, result.measured, result.options.false_positive_rate
    if not space.certain:
        yield "the bounds are only what the clean inputs showed, so values outside are not refused; --bounds tells"
    if space.layout == "vector":
        yield "the input is taken for vectors; if they are images, --image-shape H,W,C tells"
    if not any(key.startswith(("detector/", "monitor/")) for key in result.profile.stages):
        yield "no detector or monitor suits this model"
    if measured is None:
        yield "without a held-out part the false-positive rate is not measured"
        return
    if measured.total.interval[0] > asked:
        yield f"the held-out false-positive rate lies above {asked:g}: are the clean inputs all of one kind?"
    for monitor, p_value in measured.caller_p_values.items():
        if p_value <= CALLER_ALARM:
            yield f"{monitor} takes a caller who sends the held-out inputs for an attacker: clean inputs are too alike"


def show(result: FitResult, directory: str, digest: str, console: Console) -> None:
    """A table and a few lines."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    notes = result.profile.notes
    line(f"{result.profile.metadata.name}: {_input_line(result.profile)}")
    line(
        f"{notes['clean_count']} distinct clean inputs ({result.duplicates} duplicates dropped), "
        f"{notes['calibration']} for calibration, {notes['held_out']} held out"
        + (f", the others to learn from ({notes['learned_rows']} rows)" if notes.get("learned_from") == PART else "")
    )
    if notes.get("learned_from") == OWN:
        line(f"{notes['learned_rows']} inputs of their own to learn from")
    for name, raw in result.profile.networks.items():
        line(f"network {name}: {len(raw) / 1e6:.1f} MB")
    if result.measured:
        console.print(_table(result, result.measured))
        for monitor, p_value in result.measured.caller_p_values.items():
            line(f"monitor/{monitor}: one caller who sends them all ends at p = {p_value:.3g} at worst")
    for key, why in result.skipped.items():
        line(f"left out: {key}: {why}")
    for warning in warnings(result):
        line(f"note: {warning}")
    line(f"profile written to {directory} (digest {digest[:16]})")


def _input_line(profile: Profile) -> str:
    space = profile.space
    bounds = f"{min(space.low):g} to {max(space.high):g}{'' if space.certain else ' as observed'}"
    return (
        f"input {profile.input_name} {profile.datatype} {space.layout}, {bounds}; "
        f"output {profile.output_name}, {profile.classes} classes, {profile.meaning}"
    )


def _table(result: FitResult, measured: Measured) -> Table:
    rate = result.options.false_positive_rate
    table = Table(title=f"Clean inputs held out, at a false-positive rate of {rate:g}", title_justify="left")
    for heading in ("stage", "flagged", "rate", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for key, own in measured.stages.items():
        if key.startswith("detector/"):
            table.add_row(key, *_cells(own))
    table.add_section()
    table.add_row("detectors together", *_cells(measured.total), style="bold")
    return table


def _cells(rate: Rate) -> tuple[str, str, str]:
    low, high = rate.interval
    return f"{rate.flagged} of {rate.rows}", f"{100 * rate.rate:.2f} %", f"{100 * low:.2f} to {100 * high:.2f} %"
