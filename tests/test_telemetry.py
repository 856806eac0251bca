"""OpenTelemetry is told what ``on_event`` is told: as metrics, spans and their events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wsgisession import Options, SessionManager, StoreError, events
from wsgisession.stores.memory import MemoryStore

from .conftest import Visitor

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

from wsgisession.telemetry import Telemetry

ID = "0123456789abcdef0123456789abcdef"


class Collector:
    """What OpenTelemetry's own classes have collected."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self.reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.hook = Telemetry(self.meters, self.tracers)

    def points(self, name: str) -> dict[str, Any]:
        """The points of a metric, by their only attribute."""
        found: dict[str, Any] = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            attributes = point.attributes or {}
                            found[" ".join(map(str, attributes.values()))] = point
        return found

    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.meters.shutdown()
    made.tracers.shutdown()


def test_the_requests_of_a_visitor(collector: Collector) -> None:
    """Counted, timed and sized; each call of the store is a span with the id."""
    manager = SessionManager(MemoryStore(), Options(on_event=collector.hook))
    visitor = Visitor(
        manager,
        {
            "/write": lambda s: s.update(n=1),
            "/read": lambda s: s.get("n"),
            "/logout": lambda s: s.logout(),
        },
    )
    with collector.tracers.get_tracer("server").start_as_current_span(
        "request"
    ) as span:
        visitor.post("/write")
        (record,) = manager.store.records()  # type: ignore[union-attr]
        visitor.post("/write")
        visitor.get("/read")
        visitor.post("/logout")
    lives = collector.points("wsgisession.sessions")
    assert {name: point.value for name, point in lives.items()} == {
        "created": 1,
        "ended": 1,
    }
    durations = collector.points("wsgisession.store.duration")
    counts = {name: point.count for name, point in durations.items()}
    assert counts == {"load": 2, "lock": 1, "save": 2}
    assert 0 < durations["save"].sum < 5
    (size,) = collector.points("wsgisession.session.size").values()
    assert size.max == len(record.data)
    spans = [each for each in collector.spans() if each.name.startswith("session ")]
    assert sorted(each.name for each in spans) == sorted(
        ["session save"] * 2 + ["session lock"] + ["session load"] * 2
    )
    assert {each.attributes["session.id"] for each in spans} == {record.id}
    assert all(each.parent.span_id == span.context.span_id for each in spans)
    assert all(each.start_time <= each.end_time for each in spans)
    (request,) = [each for each in collector.spans() if each.name == "request"]
    assert [each.name for each in request.events] == ["session.start", "session.end"]


@pytest.mark.parametrize(
    ("event", "metric", "attribute"),
    [
        (events.Expired(id=ID), "sessions", "expired"),
        (events.Merged(id=ID), "conflicts", "merged"),
        (events.Replayed(id=ID, keys=("n",), path="/"), "conflicts", "replayed"),
        (events.Conflicted(id=ID, keys=("n",), overwritten=()), "conflicts", "decided"),
        (events.Dropped(id=ID), "conflicts", "dropped"),
        (events.Refused(id=None, reason="malformed"), "refusals", "malformed"),
        (events.TokenReused(id=ID), "refusals", "token reused"),
        (
            events.StoreFailed(error=StoreError("no"), consequence="answering 503"),
            "store.failures",
            "StoreError",
        ),
    ],
    ids=repr,
)
def test_what_happens_once_in_a_while(
    collector: Collector, event: events.Event, metric: str, attribute: str
) -> None:
    """Each is counted under a reason of a few; no id is an attribute of a metric."""
    collector.hook(event)
    collector.hook(event)
    points = collector.points(f"wsgisession.{metric}")
    assert {name: point.value for name, point in points.items()} == {attribute: 2}


def test_every_event_is_known(collector: Collector) -> None:
    """None of ``wsgisession.events`` is passed over in silence."""
    given = {
        "id": ID,
        "user": None,
        "seconds": 0.1,
        "octets": 1,
        "keys": (),
        "path": "",
        "overwritten": (),
        "reason": "unknown",
        "error": StoreError("no"),
        "consequence": "",
    }
    for kind in events.Event.__args__:  # type: ignore[attr-defined]
        fields = kind.__dataclass_fields__
        before = _measurements(collector)
        collector.hook(kind(**{name: given[name] for name in fields}))
        assert _measurements(collector) > before, kind


def _measurements(collector: Collector) -> int:
    names = ("sessions", "conflicts", "refusals", "store.failures", "store.duration")
    return sum(
        getattr(point, "count", None) or getattr(point, "value", 0)
        for name in names
        for point in collector.points(f"wsgisession.{name}").values()
    )


def test_without_a_span_nothing_is_in_the_way() -> None:
    """The providers of the process are used, where none is given."""
    hook = Telemetry()
    hook(events.Created(id=ID, user="ann"))
    hook(events.StoreFailed(error=StoreError("no"), consequence=""))
    assert not trace.get_current_span().is_recording()
