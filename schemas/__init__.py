"""The language of the house: events, topics, items, vectors, API bodies. Imports pydantic only."""
