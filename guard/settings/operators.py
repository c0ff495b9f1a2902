"""What operators see: the admin listeners, events, spans, the quarantine."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from guard import places
from guard.settings.base import Section
from guard.settings.transport import ClientTls


class Admin(Section):
    """Operators' listeners. Keep them on loopback."""

    http: str | None = "127.0.0.1:9464"
    """/metrics, /healthz and /readyz for everyone, /config and what the page shows behind the token."""
    grpc: str | None = "127.0.0.1:9465"
    """Guard's own API with health and reflection, all behind the token. Not served without one."""
    token_file: Path | None = None
    """The bearer token; or set GUARD_ADMIN_TOKEN."""
    page: bool = True
    """The page to look at, on `http`: what it shows is behind the token. It also feeds `guard top`."""


class Receiver(Section):
    """A server that takes events or spans over HTTP. Redirects are not followed; proxies are not used."""

    url: str = Field(pattern=r"^https?://[^/@?#]+(/[^@?#]*)?$")
    """`http://127.0.0.1:4318`. OTLP: a URL without a path gets `/v1/traces` or `/v1/logs`."""
    headers_file: Path | None = None
    """`NAME: VALUE`, one a line, sent with each request. A rotated file is picked up, as are all here."""
    headers_env: str | None = None
    """The environment variable that holds the same."""
    token_file: Path | None = None
    """Where a bearer token is."""
    tls: ClientTls = ClientTls()
    timeout_s: float = Field(5.0, gt=0, le=60)
    """The longest that it may be silent."""
    attempts: int = Field(4, ge=1, le=10)
    """How often a delivery is tried, after 0.5, 1, 2 ... s, before it is given up and counted."""

    @model_validator(mode="after")
    def _not_in_clear(self) -> "Receiver":
        has_secret = bool(self.headers_file or self.headers_env or self.token_file)
        host = self.url.removeprefix("http://").partition("/")[0]
        if has_secret and self.url.startswith("http://") and not _LOOPBACK.match(host):
            raise ValueError("url: headers and tokens go over https, or to loopback")
        if self.tls != ClientTls() and self.url.startswith("http://"):
            raise ValueError("tls: goes with an https url")
        return self


_LOOPBACK = re.compile(r"^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$")

_NAME = r"^[a-z][a-z0-9_-]{0,31}$"

Form = Literal["guard", "ocsf"]


class ToStdout(Section):
    """Lines on standard output."""

    kind: Literal["stdout"]
    name: str = Field("stdout", pattern=_NAME)
    """In metrics and the log."""
    form: Form = "guard"
    """`guard`: audit events; `ocsf`: OCSF 1.6 Detection Findings."""


class ToFile(Section):
    """Lines in a file, which only its owner reads, and its predecessors: `audit.jsonl.1` is the latest of them."""

    kind: Literal["file"]
    name: str = Field("file", pattern=_NAME)
    """In metrics and the log."""
    path: Path
    form: Form = "guard"
    """As with `stdout`."""
    max_bytes: int = Field(100 * 1024 * 1024, ge=1024)
    """A file that would grow past it becomes a predecessor."""
    keep: int = Field(5, ge=1, le=1000)
    """Predecessors; older ones are deleted."""


class ToOtlp(Section):
    """OpenTelemetry log records over OTLP/HTTP. Needs the extra `otel`."""

    kind: Literal["otlp"]
    name: str = Field("otlp", pattern=_NAME)
    """In metrics and the log."""
    to: Receiver
    form: Form = "guard"
    """Of a record's body."""


class ToCloudEvents(Section):
    """CloudEvents 1.0 over HTTP. Needs the extra `events`."""

    kind: Literal["cloudevents"]
    name: str = Field("cloudevents", pattern=_NAME)
    """In metrics and the log."""
    to: Receiver
    form: Literal["guard", "ocsf", "kserve"] = "guard"
    """What they carry; `kserve`: two events a decision, typed like KServe's payload logger's, without payloads."""
    content: Literal["structured", "binary", "batch"] = "structured"
    """An event a request, in one JSON document or with its attributes as headers; or up to `max_batch` a request."""
    max_batch: int = Field(64, ge=1, le=256)
    service: str = Field("", max_length=256)
    """`kserve`: the InferenceService's name; default: the model's."""
    namespace: str = Field("", max_length=256)
    """`kserve`: the InferenceService's namespace."""


AuditSink = Annotated[ToStdout | ToFile | ToOtlp | ToCloudEvents, Field(discriminator="kind")]


class Audit(Section):
    """One JSON event for each decision that is not a plain allow."""

    file: Path | None = None
    """Append here; default: standard output. Workers take turns: lines are whole. `sinks` rotate theirs."""
    sinks: tuple[AuditSink, ...] = Field((), max_length=8)
    """Instead of `file`: where events go, each place with a queue and a thread of its own."""
    chain_key_file: Path | None = None
    """A secret of at least 16 bytes: lines of files and standard output get a keyed digest of themselves and of the
    line before, so that `guard audit verify` tells what was changed, taken out or added since."""
    sample_allowed: float = Field(0.0, ge=0, le=1)
    """The share of allowed queries that are recorded too."""
    max_queued: int = Field(10_000, ge=1)
    """Events waiting to be written, in each sink; further ones are dropped and counted."""
    max_explained: int = Field(10_000, ge=1)
    """Decisions kept in memory (each worker's) for `guard explain`: those in which a monitor found something."""

    @model_validator(mode="after")
    def _apart(self) -> "Audit":
        if self.sinks and self.file is not None:
            raise ValueError("file goes into sinks: {kind: file, path: ...}")
        names = {sink.name for sink in self.sinks}
        if len(names) != len(self.sinks):
            raise ValueError("sinks: give each a name of its own")
        places = [getattr(sink, "path", sink.kind) for sink in self.sinks if sink.kind in {"stdout", "file"}]
        if len(set(places)) != len(places):
            raise ValueError("sinks: two write to the same place")
        if self.chain_key_file is not None and self.sinks and not places:
            raise ValueError("chain_key_file: needs a sink of kind file or stdout: no other has a chain")
        return self


class Tracing(Section):
    """OpenTelemetry spans over OTLP/HTTP: one a call, with one for each stage and each upstream call below it."""

    to: Receiver | None = None
    """Where spans go. Unset: no tracing. Needs the extra `otel`."""
    ratio: float = Field(0.01, ge=0, le=1)
    """The share of calls that are traced."""
    parents: Literal["follow", "join", "ignore"] = "follow"
    """Calls that bring a `traceparent`: do as it says; join its trace, but let `ratio` alone decide; or begin another
    trace. `follow` lets callers choose what is traced, up to `max_per_s`: they should be yours."""
    max_per_s: int = Field(500, ge=1)
    """Calls, and messages of streams, that are traced in a second; further ones are not, and are counted."""
    service_name: str = Field("guard", min_length=1, max_length=256)
    max_queued: int = Field(8192, ge=1, le=1_000_000)
    """Spans waiting to be sent; further ones are dropped and counted."""


class S3(Section):
    """How a bucket is reached. Credentials and region: from the environment or AWS's own files, never from here."""

    endpoint_url: str | None = Field(None, pattern=r"^https?://[^@/?#]+/?$")
    """Of a server that is not AWS's: `https://minio.internal:9000`."""
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    """What each object is to be encrypted with; default: what the bucket does."""
    kms_key_id: str | None = None
    """With `aws:kms`: the key, if not the bucket's."""

    @model_validator(mode="after")
    def _key_of_kms(self) -> "S3":
        if self.kms_key_id is not None and self.server_side_encryption != "aws:kms":
            raise ValueError("kms_key_id goes with server_side_encryption: aws:kms")
        return self


class Quarantine(Section):
    """Flagged inputs, marked so that training leaves them out: their digests, and only if asked the inputs themselves.

    `shadow` and `from_level` also say which rows' digests audit events carry, with or without a quarantine.
    """

    url: str | None = Field(None, min_length=1)
    """A directory, file:///PATH, or s3://BUCKET/PREFIX (needs the extra `quarantine`). Unset: no quarantine."""
    s3: S3 = S3()
    payload: bool = False
    """Keep the flagged rows, too. They are users' data: choose a place that is encrypted, and that few can read."""
    what: Literal["flagged", "denied"] = "flagged"
    """The flagged rows of all queries, or of those alone that are refused (`shadow`: would be)."""
    shadow: bool = True
    """Whether findings in shadow flag rows, too."""
    from_level: Literal["watch", "suspect", "hostile"] = "hostile"
    """From which level of their caller on all rows of a query are flagged."""
    max_item_bytes: int = Field(16 * 1024 * 1024, ge=1024, le=1024 * 1024 * 1024)
    """Of one query's kept rows; those that do not fit are told by their digests alone."""
    max_queued: int = Field(1000, ge=1)
    """Queries waiting to be written; further ones are dropped and counted."""
    max_queued_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Kept rows waiting to be written; further ones are dropped and counted, their digests are written."""
    rows_per_day: int = Field(1_000_000, ge=1)
    """Digests that one process writes in a day (UTC); further ones are dropped and counted. About 0.3 kB each."""
    bytes_per_day: int = Field(1024 * 1024 * 1024, ge=1024)
    """Kept rows that one process writes in a day (UTC); further ones are dropped and counted, their digests written."""
    attempts: int = Field(4, ge=1, le=10)
    """How often a write is tried, after 0.5, 1, 2 ... s, before it is given up and counted."""

    @model_validator(mode="after")
    def _useful(self) -> "Quarantine":
        if self.url is None and self.payload:
            raise ValueError("payload needs a url")
        if self.url is not None:
            try:
                places.check(self.url)
            except places.PlaceError as error:
                raise ValueError(f"url {error}") from None
        return self
