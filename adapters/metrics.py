"""Every metric simstream exports, in one file, with a sentence each. Units live in the names.

Reads, writes  nothing: whoever does the work counts it; docs/metrics.md is generated from here
Never          takes labels of unbounded number (no product ids, no users)

A counter of which an alert asks "did it grow?" shows all its label values from the start, at 0: Prometheus
does not count what a series had when it first appeared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_CALL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Declared(NamedTuple):
    """What docs/metrics.md says of a metric."""

    part: str
    name: str
    kind: str
    labels: tuple[str, ...]
    sentence: str


#: In the order of this file.
DECLARED: list[Declared] = []


def _declare(part: str, name: str, kind: str, sentence: str, labels: Sequence[str]) -> None:
    DECLARED.append(Declared(part, name, kind, tuple(labels), sentence))


def _counter(part: str, name: str, sentence: str, *labels: str) -> Counter:
    _declare(part, name, "counter", sentence, labels)
    return Counter(name, sentence, labels)


def _gauge(part: str, name: str, sentence: str, *labels: str) -> Gauge:
    _declare(part, name, "gauge", sentence, labels)
    return Gauge(name, sentence, labels)


def _histogram(part: str, name: str, sentence: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    _declare(part, name, "histogram", sentence, labels)
    return Histogram(name, sentence, labels, buckets=buckets)


# --- freshness ---------------------------------------------------------------------------------------

FRESHNESS_SECONDS = _histogram(
    "Freshness",
    "simstream_freshness_seconds",
    "Time from the event to the end of a stage: consumed, encoded, searchable.",
    "stage",
    buckets=_SECONDS,
)
SEARCHABLE_SECONDS = _histogram(
    "Freshness",
    "simstream_searchable_seconds",
    "Time from the event to the moment its change can be found, by dimension (context: price, stock and the "
    "like) and lane (live, bulk).",
    "dimension",
    "lane",
    buckets=_SECONDS,
)
OLDEST_CHANGE_SECONDS = _gauge(
    "Freshness",
    "simstream_oldest_change_seconds",
    "How long the change that has waited longest in the embeddings consumer has been in hand, by collection "
    "and lane; 0 when none waits.",
    "collection",
    "lane",
)

# --- the loop ----------------------------------------------------------------------------------------

RECORDS_TOTAL = _counter(
    "Consumers", "simstream_records_total", "Records decoded, by consumer and topic.", "consumer", "topic"
)
LAG_RECORDS = _gauge(
    "Consumers",
    "simstream_lag_records",
    "Records between the broker's high watermark and what is done, by group, topic and partition; told by "
    "the member that has the partition.",
    "consumer",
    "group",
    "topic",
    "partition",
)
IN_FLIGHT_RECORDS = _gauge(
    "Consumers", "simstream_in_flight_records", "Records polled and not yet settled, by consumer.", "consumer"
)
READ_AHEAD_RECORDS = _gauge(
    "Consumers",
    "simstream_read_ahead_records",
    "Bulk records that were polled and wait unparsed, so that live ones can pass, by consumer.",
    "consumer",
)
PAUSED_TOPICS = _gauge(
    "Consumers",
    "simstream_paused_topics",
    "Topics of a consumer that are paused because too much of them is in hand.",
    "consumer",
)
BATCH_RECORDS = _histogram(
    "Consumers",
    "simstream_batch_records",
    "Records handed over in one batch, by consumer.",
    "consumer",
    buckets=_COUNTS,
)
DEAD_LETTERS_TOTAL = _counter(
    "Consumers",
    "simstream_dead_letters_total",
    "Records put on a dead-letter topic, by topic and reason: invalid (does not parse), null, key (missing "
    "or not the id in the body), clock (a time too far ahead).",
    "consumer",
    "topic",
    "reason",
)
TRANSIENT_ERRORS_TOTAL = _counter(
    "Consumers",
    "simstream_transient_errors_total",
    "Retries: times a stage waited for a store or the broker, and then did the same work again.",
    "stage",
)
HALTS_TOTAL = _counter(
    "Consumers",
    "simstream_halts_total",
    "Times a consumer stopped by itself, uncommitted: a person has to decide, or a fault ended it.",
    "consumer",
)
REWINDS_TOTAL = _counter(
    "Consumers",
    "simstream_rewinds_total",
    "Times a consumer went back to its commit because a store restarted.",
    "consumer",
)
COMMITS_TOTAL = _counter(
    "Consumers", "simstream_commits_total", "Offset commits, by consumer and result.", "consumer", "result"
)
REVIEW_DIGESTS_TOTAL = _counter(
    "Consumers",
    "simstream_review_digests_total",
    "Digests of reviews made, by result: moved, same, overtaken (other texts stood there by then).",
    "result",
)
DEBOUNCED_ITEMS = _gauge(
    "Consumers",
    "simstream_debounced_items",
    "Items whose behaviour has moved and that wait to be announced.",
)
UNDELIVERED_RECORDS_TOTAL = _counter(
    "Consumers",
    "simstream_undelivered_records_total",
    "Records that the broker refused or did not acknowledge in time; what must arrive is sent again.",
    "topic",
)
PUBLISHER_QUEUE_RECORDS = _gauge(
    "Consumers",
    "simstream_publisher_queue_records",
    "Records that this process has published and the broker has not acknowledged.",
)

# --- the encoder -------------------------------------------------------------------------------------

ENCODED_TEXTS_TOTAL = _counter("Encoder", "simstream_encoded_texts_total", "Texts run through the encoder.")
ENCODED_TOKENS_TOTAL = _counter(
    "Encoder", "simstream_encoded_tokens_total", "Tokens run through the encoder, padding excluded."
)
ENCODER_SECONDS_TOTAL = _counter(
    "Encoder", "simstream_encoder_seconds_total", "Seconds the encoder was busy."
)
TRUNCATED_TEXTS_TOTAL = _counter(
    "Encoder", "simstream_truncated_texts_total", "Texts longer than the model's limit, cut at its end."
)
ENCODE_BATCH_TEXTS = _histogram(
    "Encoder",
    "simstream_encode_batch_texts",
    "Texts that the embeddings consumer sent to the encoder in one call, by lane.",
    "lane",
    buckets=_COUNTS,
)
ENCODE_SECONDS = _histogram(
    "Encoder",
    "simstream_encode_seconds",
    "How long the embeddings consumer waited for one call of the encoder, by lane.",
    "lane",
    buckets=_SECONDS,
)
SKIPPED_ENCODINGS_TOTAL = _counter(
    "Encoder",
    "simstream_skipped_encodings_total",
    "Changes served without the encoder: no text fingerprint moved.",
)

# --- the stores --------------------------------------------------------------------------------------

WORK_ENTRIES = _gauge(
    "Stores",
    "simstream_work_entries",
    "Items in hand of the embeddings consumer, by collection and queue: due (to compare and write) and "
    "unencoded (waiting for the encoder), live and bulk.",
    "collection",
    "queue",
)
INDEX_WRITES_TOTAL = _counter(
    "Stores", "simstream_index_writes_total", "Points written, by kind: live, tombstone.", "kind"
)
INDEX_WRITE_BATCH_POINTS = _histogram(
    "Stores", "simstream_index_write_batch_points", "Points in one conditional upsert.", buckets=_COUNTS
)
INDEX_SECONDS = _histogram(
    "Stores",
    "simstream_index_seconds",
    "Time of one call to the index by its writer: read (points), write (whole points), payload "
    "(payloads alone).",
    "call",
    buckets=_CALL_SECONDS,
)
INDEX_POINTS = _gauge(
    "Stores", "simstream_index_points", "Points of the live collection, tombstones included.", "collection"
)
REDIS_SECONDS = _histogram(
    "Stores",
    "simstream_redis_seconds",
    "Time of one call to Redis, scripts and pipelines included, by what it was for.",
    "call",
    buckets=_CALL_SECONDS,
)
REDIS_MEMORY_BYTES = _gauge(
    "Stores",
    "simstream_redis_memory_bytes",
    "Memory that Redis has in use, by node.",
    "node",
)
REDIS_MAX_MEMORY_BYTES = _gauge(
    "Stores",
    "simstream_redis_max_memory_bytes",
    "Memory that Redis may use (maxmemory, else what its machine has), by node.",
    "node",
)
STORES_LOOKED_AT_SECONDS = _gauge(
    "Stores",
    "simstream_stores_looked_at_timestamp_seconds",
    "When this process last read the figures of Redis, the index and the releases, in seconds since 1970.",
)

# --- pictures ----------------------------------------------------------------------------------------

PICTURES_TOTAL = _counter(
    "Pictures",
    "simstream_pictures_total",
    "Pictures of items by what became of them: encoded, tried again, left for reconcile, or why there is no "
    "vector (address, size, kind, pixels, time, ...).",
    "outcome",
)

# --- releases and training ---------------------------------------------------------------------------

RELEASE_STATE = _gauge(
    "Releases",
    "simstream_release_state",
    "1 for the state that each collection's release is in: candidate, backfilling, verified, live, retired.",
    "release",
    "collection",
    "state",
)
RELEASES_REFUSED_TOTAL = _counter(
    "Releases",
    "simstream_releases_refused_total",
    "Releases that somebody asked for and that were refused, by the state they were in (candidate: by the "
    "gate, or broken).",
    "state",
)
GATE_VERDICTS_TOTAL = _counter(
    "Releases",
    "simstream_gate_verdicts_total",
    "What the gate said of candidates trained here: passed, refused, broken (not even measured).",
    "result",
)
TRAINING_DECISIONS_TOTAL = _counter(
    "Releases",
    "simstream_training_decisions_total",
    "Times the schedule looked for a reason to train, by what it decided: train, wait.",
    "decision",
)
TRAINING_RUNS_TOTAL = _counter(
    "Releases", "simstream_training_runs_total", "Training runs, by how they ended: done, failed.", "result"
)
TRAINING_SECONDS = _gauge(
    "Releases", "simstream_training_seconds", "How long the last run took, judging it included."
)

# --- the API -----------------------------------------------------------------------------------------

HTTP_REQUESTS_TOTAL = _counter(
    "API", "simstream_http_requests_total", "Answers of the API, by route and status.", "route", "status"
)
HTTP_SECONDS = _histogram(
    "API", "simstream_http_seconds", "Time to answer, by route.", "route", buckets=_SECONDS
)
HTTP_IN_HAND = _gauge("API", "simstream_http_in_hand", "Requests that are being answered.")
API_KEYS_VERSIONS_TOTAL = _counter(
    "API",
    "simstream_api_keys_versions_total",
    "Versions of the keys file read, by result: taken, refused.",
    "result",
)
API_KEYS_REFUSED = _gauge(
    "API",
    "simstream_api_keys_refused",
    "1 while the keys file as it is now is wrong and older keys are in force.",
)

# --- processes ---------------------------------------------------------------------------------------

PROCESS_MEMORY_BYTES = _gauge(
    "Processes",
    "simstream_process_memory_bytes",
    "Resident memory by process: the exporting one, and its children (encoder, backfill; embedded, the "
    "servers too). Pages that two processes share count for both. Linux only.",
    "process",
)
PROCESS_MEMORY_LIMIT_BYTES = _gauge(
    "Processes",
    "simstream_process_memory_limit_bytes",
    "What the process and its children may use together: the limit of its container, else the machine's "
    "memory.",
    "process",
)

for _result in ("passed", "refused", "broken"):
    GATE_VERDICTS_TOTAL.labels(result=_result)
for _result in ("done", "failed"):
    TRAINING_RUNS_TOTAL.labels(result=_result)
for _decision in ("train", "wait"):
    TRAINING_DECISIONS_TOTAL.labels(decision=_decision)

# --- what shops make of similarity -------------------------------------------------------------------

RULES_VERSIONS_TOTAL = _counter(
    "Uses",
    "simstream_rules_versions_total",
    "Versions of the rules file read, by result: taken, refused.",
    "result",
)
RULES_REFUSED = _gauge(
    "Uses",
    "simstream_rules_refused",
    "1 while the rules file as it is now is wrong and an older version is served.",
)
PRICE_INSIGHTS_TOTAL = _counter(
    "Uses",
    "simstream_price_insights_total",
    "Prices announced on insights.prices, by what they became: outlier, usual.",
    "became",
)
OPINION_INSIGHTS_TOTAL = _counter(
    "Uses",
    "simstream_opinion_insights_total",
    "Aspects announced on insights.opinions, by what reviewers come to: good, mixed, bad, none.",
    "became",
)
OPINION_REVIEWS_TOTAL = _counter(
    "Uses",
    "simstream_opinion_reviews_total",
    "Reviews looked at for opinions, by whether their clauses had to be encoded: heard, known.",
    "how",
)
