"""The query API. Imports no torch for item-to-item queries."""
