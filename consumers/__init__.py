"""Kafka to stores: one handler per file, one loop for all of them."""
