"""A core server's figures for Prometheus.

While answers go on only plain numbers are counted; they become Prometheus' families when somebody asks.
No label holds anything that an agent sent: models and keys' ids are the provider's, ends and reasons are codes of
`ssd2.errors`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from core_server.catalogue.distribution import SECONDS, Distribution, Tally
from core_server.catalogue.engine_messages import Alive
from core_server.observability.readiness import Readiness, RunningEngine
from ssd2.errors import SENT_BY_CORES

PREFIX = "slingshot_core"

_T = TypeVar("_T")
_Labels: TypeAlias = tuple[str, ...]

CLOSED, DISCONNECTED, CANCELLED, INTERNAL = "closed", "disconnected", "cancelled", "internal"
"""How an answer ends where it does not end with an error that has a code: its agent has had enough and says so, ends
its stream without a word, or takes it back or is gone; or something failed that nobody foresaw."""

REASONS = (*sorted(error.code for error in SENT_BY_CORES), INTERNAL)
ENDS = (CLOSED, DISCONNECTED, CANCELLED, *REASONS)


# See docs/decisions/027-observability.md.
class Metrics(Collector):
    """Counters of a server; every server has its own.

    Attributes:
        registry: holds these figures and no others.
        sessions_active: answers in progress.
        sessions_opened: by model.
        sessions_ended: by model and how they ended, one of `ENDS`.
        rejected: calls that ended with an error before they were an answer, by its code.
        committed_tokens: of blocks that agents finished, by model: by a commit, or the last one by Close.
        timesteps: that agents asked for, by model: the first with Open, one more with each projection.
        unused_guesses: timesteps sent ahead whose logits no projection answered, by model.
        key_tokens: as `committed_tokens`, by model and key.
        key_timesteps: as `timesteps`, by model and key.
        message_bytes: of messages, by direction: "up" or "down".
        client_answer_seconds: that agents took from logits to projection.
        certificate_expires: Unix timestamp of the certificate's end; None without one.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self.registry = CollectorRegistry()
        self.sessions_active = 0
        self.sessions_opened: Counter[str] = Counter()
        self.sessions_ended: Counter[_Labels] = Counter()
        self.rejected = Counter(dict.fromkeys(REASONS, 0))
        self.committed_tokens: Counter[str] = Counter()
        self.timesteps: Counter[str] = Counter()
        self.unused_guesses: Counter[str] = Counter()
        self.key_tokens: Counter[_Labels] = Counter()
        self.key_timesteps: Counter[_Labels] = Counter()
        self.message_bytes = Counter(up=0, down=0)
        self.client_answer_seconds = Tally(SECONDS)
        self.certificate_expires: float | None = None
        self.registry.register(self)

    def expect(self, models: Sequence[str]) -> None:
        """Begin all series of some models at 0: a rate is blind to the step from no series to 1."""
        for model in models:
            for counts in (self.sessions_opened, self.committed_tokens, self.timesteps, self.unused_guesses):
                counts[model] += 0
            for end in ENDS:
                self.sessions_ended[model, end] += 0

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        yield from self._of_sessions()
        engines = self._readiness.engines
        yield from self._of_engines(engines.living if engines else {}, engines.restarts if engines else {})

    def _of_sessions(self) -> Iterator[Metric]:
        yield _gauge("ready", "1 if the server can take an answer now, else 0", {(): self._readiness.obstacle is None})
        end: dict[_Labels, float] = {(): self.certificate_expires} if self.certificate_expires else {}
        yield _gauge("certificate_expires_timestamp_seconds", "Expiry time of the server's certificate", end)
        yield _gauge("sessions_active", "Answers in progress", {(): self.sessions_active})
        yield _counter("sessions_opened", "Answers begun", ["model"], _keyed(self.sessions_opened))
        yield _counter("sessions_ended", "Answers, by outcome", ["model", "end"], self.sessions_ended)
        yield _counter("rejected", "Calls refused before they were an answer", ["reason"], _keyed(self.rejected))
        yield from self._of_usage()
        yield _counter("message_bytes", "Bytes of messages", ["direction"], _keyed(self.message_bytes))
        taken = self.client_answer_seconds.taken()
        yield _histogram("client_answer_seconds", "Time from sending logits to the agent's projection", [], {(): taken})

    def _of_usage(self) -> Iterator[Metric]:
        model, key = ["model"], ["model", "key"]
        tokens = "Tokens of blocks that agents finished; blocks replayed after a break count again"
        yield _counter("committed_tokens", tokens, model, _keyed(self.committed_tokens))
        timesteps = "Timesteps that agents asked for; those replayed after a break count again"
        yield _counter("timesteps", timesteps, model, _keyed(self.timesteps))
        guesses = "Timesteps sent ahead on guesses that were wrong or came after the answer's end"
        yield _counter("unused_guesses", guesses, model, _keyed(self.unused_guesses))
        yield _counter("key_tokens", f"By key: {tokens}", key, self.key_tokens)
        yield _counter("key_timesteps", f"By key: {timesteps}", key, self.key_timesteps)

    def _of_engines(self, engines: Mapping[int, RunningEngine], restarts: Mapping[int, int]) -> Iterator[Metric]:
        def of_each(figure: Callable[[Alive], _T]) -> dict[_Labels, _T]:
            return {(str(n),): figure(engine.alive) for n, engine in engines.items() if engine.alive}

        label = ["engine"]
        running: dict[_Labels, float] = {(str(n),): n in engines for n in restarts}
        yield _gauge("engine_running", "1 while an engine runs, 0 while it is restarted or given up", running, label)
        counts: dict[_Labels, int] = {(str(n),): count for n, count in restarts.items()}
        yield _counter("engine_restarts", "Restarts of an engine", label, counts)
        silences: dict[_Labels, float] = {(str(n),): engine.silence_s for n, engine in engines.items()}
        yield _gauge("engine_heartbeat_age_seconds", "Time since an engine's last message", silences, label)
        able = of_each(lambda alive: alive.fault is None)
        yield _gauge("engine_able", "1 while an engine can compute, 0 while its upstream cannot", able, label)
        ratios = of_each(lambda alive: alive.slots_used / alive.slots)
        yield _gauge("slots_used_ratio", "Share of an engine's slots that are in use", ratios, label)
        waiting = of_each(lambda alive: alive.steps_waiting)
        yield _gauge("steps_waiting", "Timesteps waiting or being computed", waiting, label)
        seconds = of_each(lambda alive: alive.step_seconds)
        yield _histogram("step_seconds", "Duration of a batch of timesteps", label, seconds)
        yield _histogram("batch_size", "Blocks in a batch", label, of_each(lambda alive: alive.batch_size))


def _keyed(counts: Mapping[str, int]) -> dict[_Labels, int]:
    return {(key,): count for key, count in counts.items()}


def _gauge(name: str, what: str, values: Mapping[_Labels, float], labels: Sequence[str] = ()) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", what, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, what: str, labels: Sequence[str], counts: Mapping[_Labels, int]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", what, labels=labels)
    for key, count in counts.items():
        family.add_metric(key, count)
    return family


def _histogram(name: str, what: str, labels: Sequence[str], taken: Mapping[_Labels, Distribution]) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}_{name}", what, labels=labels)
    for key, values in taken.items():
        upper_bounds = [*map(str, values.bounds), "+Inf"]
        family.add_metric(key, list(zip(upper_bounds, accumulate(values.counts), strict=True)), values.total)
    return family
