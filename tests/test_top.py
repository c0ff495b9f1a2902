"""What `guard top` draws, beside what the tests of a running Guard see of it."""

import pytest

from guard.cli_top import Seen
from guard.top import _health, no_plain, spark


def test_bars_show_all_of_it_and_end_with_the_latest() -> None:
    assert spark([]) == ""
    assert spark([(0.0, 0.0), (1.0, 0.5), (2.0, 1.0), (3.0, 40.0), (4.0, -1.0)]) == "▁▄██▁"
    rising = spark([(float(i), i / 99) for i in range(100)])
    assert (len(rising), rising[0], rising[-1]) == (16, "▁", "█")
    assert list(rising) == sorted(rising)


def test_decisions_that_were_no_plain_allow() -> None:
    decided = [
        {"action": "allow", "would_be": "deny", "count": 2.0},
        {"action": "deny", "would_be": "deny", "count": 3.0},
        {"action": "allow", "would_be": "allow", "count": 5.0},
    ]
    assert no_plain({"decisions": decided}, "action") == 3.0
    assert no_plain({"decisions": decided}, "would_be") == 5.0


def test_rates_are_between_two_documents_that_differ() -> None:
    seen = Seen()
    for time in (1.0, 1.0, 3.0, 3.0):
        seen.add({"time": time})
    assert (seen.former, seen.latest) == ({"time": 1.0}, {"time": 3.0})


@pytest.mark.parametrize(("codes", "said"), [({"CANCELLED": 3.0}, "answered"), ({"UNAVAILABLE": 2.0}, "2 failed")])
def test_a_call_that_its_caller_ended_is_no_failure_of_the_upstream(codes: dict[str, float], said: str) -> None:
    counts = {"upstream_calls": {"OK": 5.0, **codes}, "store_entries": 0.0, "store_away": False, "audit_events": {}}
    look = {"models": [], "counts": counts, "limits": {"store": "memory", "store_entries": 1, "workers": 1}}
    assert next(iter(_health(look).columns[1].cells)).plain == said
