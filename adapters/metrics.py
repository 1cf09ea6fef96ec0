"""Every metric simstream exports, in one file, with a sentence each. Units live in the names.

Never takes labels of unbounded number (no product ids, no users).
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)

FRESHNESS_SECONDS = Histogram(
    "simstream_freshness_seconds",
    "Time from the event to the end of a stage: consumed, encoded, searchable.",
    ["stage"],
    buckets=_SECONDS,
)
RECORDS_TOTAL = Counter(
    "simstream_records_total", "Records decoded, by consumer and topic.", ["consumer", "topic"]
)
DEAD_LETTERS_TOTAL = Counter(
    "simstream_dead_letters_total", "Records put on a dead-letter topic, by topic.", ["consumer", "topic"]
)
LAG_RECORDS = Gauge(
    "simstream_lag_records",
    "Records between the broker's high watermark and the commit, by consumer and topic.",
    ["consumer", "topic"],
)
IN_FLIGHT_RECORDS = Gauge(
    "simstream_in_flight_records", "Records polled and not yet settled, by consumer.", ["consumer"]
)
BATCH_RECORDS = Histogram(
    "simstream_batch_records", "Records handed over in one batch, by consumer.", ["consumer"], buckets=_COUNTS
)
TRANSIENT_ERRORS_TOTAL = Counter(
    "simstream_transient_errors_total", "Times a stage waited for a store or the broker.", ["stage"]
)
REWINDS_TOTAL = Counter(
    "simstream_rewinds_total",
    "Times a consumer went back to its commit because a store restarted.",
    ["consumer"],
)
COMMITS_TOTAL = Counter(
    "simstream_commits_total", "Offset commits, by consumer and result.", ["consumer", "result"]
)
REVIEW_DIGESTS_TOTAL = Counter(
    "simstream_review_digests_total",
    "Digests of reviews made, by result: moved, same, overtaken (other texts stood there by then).",
    ["result"],
)
ENCODED_TEXTS_TOTAL = Counter("simstream_encoded_texts_total", "Texts run through the encoder.")
ENCODED_TOKENS_TOTAL = Counter(
    "simstream_encoded_tokens_total", "Tokens run through the encoder, padding excluded."
)
ENCODER_SECONDS_TOTAL = Counter("simstream_encoder_seconds_total", "Seconds the encoder was busy.")
TRUNCATED_TEXTS_TOTAL = Counter(
    "simstream_truncated_texts_total", "Texts longer than the model's limit, cut at its end."
)
SKIPPED_ENCODINGS_TOTAL = Counter(
    "simstream_skipped_encodings_total", "Changes served without the encoder: no text fingerprint moved."
)
INDEX_WRITES_TOTAL = Counter(
    "simstream_index_writes_total", "Points written, by kind: live, tombstone.", ["kind"]
)
INDEX_WRITE_BATCH_POINTS = Histogram(
    "simstream_index_write_batch_points", "Points in one conditional upsert.", buckets=_COUNTS
)
HTTP_REQUESTS_TOTAL = Counter(
    "simstream_http_requests_total", "Answers of the API, by route and status.", ["route", "status"]
)
HTTP_SECONDS = Histogram("simstream_http_seconds", "Time to answer, by route.", ["route"], buckets=_SECONDS)
RULES_VERSIONS_TOTAL = Counter(
    "simstream_rules_versions_total",
    "Versions of the rules file read, by result: taken, refused.",
    ["result"],
)
RULES_REFUSED = Gauge(
    "simstream_rules_refused", "1 while the rules file as it is now is wrong and an older version is served."
)
PRICE_INSIGHTS_TOTAL = Counter(
    "simstream_price_insights_total",
    "Prices announced on insights.prices, by what they became: outlier, usual.",
    ["became"],
)
