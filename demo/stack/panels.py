"""What the dashboard shows: rows of panels, each with its PromQL. `demo.stack.dashboard` makes Grafana's JSON of it.

`or vector(0)` stands where nothing to count is the good case, so that a panel says 0 and not "No data".
"""

from dataclasses import dataclass

M = 'job=~"$job",model=~"$model"'
J = 'job=~"$job"'
W = "[$__rate_interval]"
NONE = " or vector(0)"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. queries: expression and legend each. unit: Grafana's name of it. stacked: the sum matters."""

    title: str
    text: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    stacked: bool = False


def rate(metric: str, by: str, labels: str = M, *, rare: bool = False) -> str:
    """A counter's rate, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}{W})){NONE if rare else ''}"


def quantile(q: float, metric: str, by: str, labels: str = M) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{{{labels}}}{W})))"


_MEAN_OF_PHASES = " / ".join(rate(f"guard_phase_seconds_{part}", "model, phase") for part in ("sum", "count"))
_DECIDED = rate("guard_decisions_total", "model")
_DOUBTED = rate("guard_decisions_total", "model", f'{M},would_be!~"allow|challenge"')
_SUSPICIOUS = f"({_DOUBTED} or 0 * {_DECIDED}) / {_DECIDED}"

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Objectives",
        (
            Panel(
                "Calls that Guard itself failed",
                "Share over 1 h. The objective is 0.1 % over 30 days (deploy/prometheus/recording.yaml).",
                ((f"guard:errors:ratio_rate1h{{{J}}}", "{{job}}"),),
                "percentunit",
            ),
            Panel(
                "Calls to which Guard added over 50 ms",
                "Share over 1 h. The objective is 1 % over 30 days.",
                ((f"guard:slow:ratio_rate1h{{{J}}}", "{{job}}"),),
                "percentunit",
            ),
            Panel(
                "Alerts",
                "Of Guard's own, pending or firing. docs/runbooks.md says what each means.",
                (
                    (
                        f'sum by (alertname, alertstate) (ALERTS{{alertname=~"Guard.*"}}){NONE}',
                        "{{alertname}} {{alertstate}}",
                    ),
                ),
                stacked=True,
            ),
        ),
    ),
    (
        "Traffic",
        (
            Panel(
                "Calls by method and code",
                "As the client sees them: refusals by policy are PERMISSION_DENIED.",
                ((rate("grpc_server_handled_total", "grpc_method, grpc_code", J), "{{grpc_method}} {{grpc_code}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Rows",
                "Inputs that the model was asked about for callers, and those that Guard asked about for itself.",
                (
                    (rate("guard_rows_total", "model"), "{{model}}"),
                    (rate("guard_extra_rows_total", "model, how", rare=True), "{{model}} extra, {{how}}"),
                ),
                "rowsps",
            ),
            Panel(
                "Turned away or uninspected",
                "Bad requests, calls turned away before they were read, and queries that were forwarded uninspected.",
                (
                    (rate("guard_invalid_queries_total", "model", rare=True), "{{model}} invalid"),
                    (rate("guard_rejected_calls_total", "reason", J, rare=True), "rejected: {{reason}}"),
                    (rate("guard_uninspected_total", "model, reason", rare=True), "{{model}} uninspected: {{reason}}"),
                    (rate("guard_denied_methods_total", "grpc_method", J, rare=True), "method: {{grpc_method}}"),
                ),
                "reqps",
            ),
        ),
    ),
    (
        "Latency",
        (
            Panel(
                "Added by Guard",
                "To unary calls that were forwarded, without the upstream's own call and what the policy holds back.",
                (
                    (quantile(0.5, "guard_added_seconds", "model"), "{{model}} p50"),
                    (quantile(0.99, "guard_added_seconds", "model"), "{{model}} p99"),
                ),
                "s",
            ),
            Panel(
                "By stage of the way (mean)",
                "sketch: hashes; store: history; decide: detectors, policy; conclude: views, outputs (shadow: late).",
                ((_MEAN_OF_PHASES, "{{model}} {{phase}}"),),
                "s",
                stacked=True,
            ),
            Panel(
                "Whole calls and upstream, p99",
                "What callers wait for, and what of it is the model server.",
                (
                    (quantile(0.99, "grpc_server_handling_seconds", "grpc_method", J), "{{grpc_method}}"),
                    (quantile(0.99, "guard_upstream_seconds", "model, purpose"), "upstream {{model}} {{purpose}}"),
                ),
                "s",
            ),
        ),
    ),
    (
        "Decisions and findings",
        (
            Panel(
                "Decisions by action",
                "What was done.",
                ((rate("guard_decisions_total", "model, action"), "{{model}} {{action}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Suspicious share",
                "What would not be allowed were everything enforced; of clean traffic about the false-positive budget.",
                ((_SUSPICIOUS, "{{model}}"),),
                "percentunit",
            ),
            Panel(
                "Findings by stage",
                "Findings that fired, enforced or in shadow.",
                (
                    (
                        rate("guard_findings_total", "model, kind, stage, mode", rare=True),
                        "{{model}} {{stage}} ({{mode}})",
                    ),
                ),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Stages that failed",
                "Their on_error decided about the query.",
                ((rate("guard_stage_errors_total", "model, stage", rare=True), "{{model}} {{stage}}"),),
                "reqps",
            ),
        ),
    ),
    (
        "False-alarm drift",
        (
            Panel(
                "Distance from the fit",
                "The most by which presumably clean inputs have smaller p-values than those of the fit.",
                ((f"max by (model, stage) (guard_drift_distance{{{M}}})", "{{model}} {{stage}}"),),
            ),
            Panel(
                "Drift alarms",
                "1: inputs have become more suspicious to a detector than those of the fit, beyond chance.",
                ((f"max by (model, stage) (guard_drift_alarm{{{M}}})", "{{model}} {{stage}}"),),
            ),
        ),
    ),
    (
        "Callers",
        (
            Panel(
                "Queries of callers by alert level",
                "Callers whom monitors have evidence against: watch, suspect, hostile. Who they are: guard callers.",
                ((rate("guard_alarmed_queries_total", "model, level", rare=True), "{{model}} {{level}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Changes of level, in an hour",
                "How many callers came to a level, by which; clear: let off.",
                (
                    (
                        f"sum by (model, level) (increase(guard_caller_level_changes_total{{{M}}}[1h])){NONE}",
                        "{{model}} to {{level}}",
                    ),
                ),
            ),
            Panel(
                "Who knew the caller",
                "Sources of identity, and credentials that failed.",
                ((rate("guard_identities_total", "source", J), "{{source}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Extraction budget",
                "How often a copy that the caller of a query could make by now would agree with the model (estimate).",
                (
                    (quantile(0.5, "guard_extraction_estimate_ratio", "model"), "{{model}} p50"),
                    (quantile(0.99, "guard_extraction_estimate_ratio", "model"), "{{model}} p99"),
                ),
                "percentunit",
            ),
            Panel(
                "Rationed, challenged",
                "Calls that ran out of budget, were throttled or delayed, or were to bring proof of work.",
                (
                    (
                        rate("guard_rationed_calls_total", "model, what, outcome", rare=True),
                        "{{model}} {{what}} {{outcome}}",
                    ),
                    (rate("guard_challenges_total", "model, outcome", rare=True), "{{model}} proof: {{outcome}}"),
                    (rate("guard_unrationed_calls_total", "model", rare=True), "{{model}} not looked up"),
                ),
                "reqps",
            ),
        ),
    ),
    (
        "Store, upstream and logs",
        (
            Panel(
                "Model ready, store away, profile mismatch",
                "1 for yes.",
                (
                    (f"min by (model) (guard_model_ready{{{M}}})", "{{model}} ready"),
                    (f"max by (job) (guard_store_away{{{J}}})", "store away"),
                    (f"max by (model) (guard_profile_mismatch{{{M}}})", "{{model}} profile mismatch"),
                ),
            ),
            Panel(
                "Upstream calls by code",
                "purpose: original and ride are a caller's own; the others are Guard's.",
                (
                    (
                        rate("guard_upstream_calls_total", "model, purpose, grpc_code"),
                        "{{model}} {{purpose}} {{grpc_code}}",
                    ),
                ),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Store",
                "Rows that this process's own store remembers, and what was forgotten to stay in bounds.",
                (
                    (f"sum by (job) (guard_store_entries{{{J}}})", "entries"),
                    (rate("guard_store_evicted_total", "what", J, rare=True), "evicted a second: {{what}}"),
                ),
            ),
            Panel(
                "Audit and quarantine",
                "Events and flagged rows by what became of them.",
                (
                    (rate("guard_audit_events_total", "outcome", J, rare=True), "audit {{outcome}}"),
                    (
                        rate("guard_quarantined_rows_total", "what, outcome", J, rare=True),
                        "quarantine {{what}} {{outcome}}",
                    ),
                    (rate("guard_watch_lost_total", "job", J), "lost by Watch"),
                ),
                "reqps",
            ),
        ),
    ),
    (
        "Saturation",
        (
            Panel(
                "Calls in flight and queued",
                "Past limits.max_concurrent_calls calls queue; past limits.max_queued_calls they are turned away.",
                (
                    (f"sum by (job) (guard_calls_in_flight{{{J}}})", "in flight"),
                    (f"sum by (job) (guard_calls_queued{{{J}}})", "queued"),
                ),
            ),
            Panel(
                "CPU",
                "Cores in use. Empty where Guard runs several workers: they have no process metrics of their own.",
                ((f"rate(process_cpu_seconds_total{{{J}}}{W})", "{{job}} {{instance}}"),),
                "cores",
            ),
            Panel(
                "Memory",
                "Resident. Empty where Guard runs several workers.",
                ((f"process_resident_memory_bytes{{{J}}}", "{{job}} {{instance}}"),),
                "bytes",
            ),
            Panel(
                "Workers and reloads",
                "Workers that ended by themselves, and reloads of the settings, in an hour.",
                (
                    (f"sum by (state) (guard_workers{{{J}}}){NONE}", "workers {{state}}"),
                    (f"sum by (job) (increase(guard_worker_restarts_total{{{J}}}[1h])){NONE}", "restarts"),
                    (f"sum by (result) (increase(guard_config_reloads_total{{{J}}}[1h])){NONE}", "reloads {{result}}"),
                ),
            ),
        ),
    ),
)
