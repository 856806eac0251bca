"""Metrics and spans by OpenTelemetry: a hook for the option ``on_event``.

``session.id`` and the events ``session.start`` and ``session.end`` are those of the
semantic conventions; the other names begin with ``wsgisession``.  No metric has an
attribute with as many values as there are sessions or users.  This file knows events,
and nothing of sessions or stores.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace

from . import events

__all__ = ["Telemetry"]

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

SCOPE = "wsgisession"


class Telemetry:
    """Give it as ``on_event``: each event becomes a measurement, and a span or a line of
    the span in which it happens.

    :param meter_provider: where the metrics go; None: the global one.
    :param tracer_provider: where the spans go; None: the global one.
    """

    def __init__(
        self,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._duration = meter.create_histogram(
            "wsgisession.store.duration", "s", "What a call of the store took."
        )
        self._size = meter.create_histogram(
            "wsgisession.session.size", "By", "Data of a session when it is saved."
        )
        self._lives = meter.create_counter(
            "wsgisession.sessions", "{session}", "Sessions that began or ended."
        )
        self._conflicts = meter.create_counter(
            "wsgisession.conflicts", "{request}", "Requests that met another one."
        )
        self._refusals = meter.create_counter(
            "wsgisession.refusals", "{cookie}", "Cookies that led nowhere."
        )
        self._failures = meter.create_counter(
            "wsgisession.store.failures", "{failure}", "Failures of the store."
        )

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Loaded(id=id, seconds=seconds):
                self._timed("load", id, seconds)
            case events.Waited(id=id, seconds=seconds):
                self._timed("lock", id, seconds)
            case events.Saved(id=id, octets=octets, seconds=seconds):
                self._size.record(octets)
                self._timed("save", id, seconds)
            case events.Created(id=id):
                self._lived("created", "session.start", id)
            case events.Ended(id=id):
                self._lived("ended", "session.end", id)
            case events.Expired(id=id):
                self._lived("expired", "session.end", id)
            case events.Refused(reason=reason):
                self._refusals.add(1, {"wsgisession.reason": reason})
            case events.StoreFailed(error=error):
                self._failures.add(1, {"error.type": type(error).__name__})
                trace.get_current_span().record_exception(error)
            case events.TokenReused(id=id):
                self._refusals.add(1, {"wsgisession.reason": "token reused"})
                _note("wsgisession.token_reused", {"session.id": id})
            case _:
                self._met(event)

    def _met(self, event: events.Event) -> None:
        """What became of a request that met another one."""
        match event:
            case events.Merged(id=id):
                outcome, keys = "merged", ()
            case events.Replayed(id=id, keys=keys):
                outcome = "replayed"
            case events.Conflicted(id=id, keys=keys):
                outcome = "decided"
            case events.Dropped(id=id):
                outcome, keys = "dropped", ()
            case _:
                return  # an event of a later version
        self._conflicts.add(1, {"wsgisession.outcome": outcome})
        _note(
            f"wsgisession.{outcome}", {"session.id": id, "wsgisession.keys": list(keys)}
        )

    def _timed(self, operation: str, id: str, seconds: float) -> None:
        self._duration.record(seconds, {"wsgisession.operation": operation})
        end = time.time_ns()
        span = self._tracer.start_span(
            f"session {operation}",
            start_time=end - int(seconds * 1e9),
            attributes={"session.id": id},
        )
        span.end(end)

    def _lived(self, change: str, name: str, id: str) -> None:
        self._lives.add(1, {"wsgisession.change": change})
        _note(name, {"session.id": id})


def _note(name: str, attributes: Attributes) -> None:
    """A line in the span of the request, if there is one."""
    trace.get_current_span().add_event(name, attributes)
