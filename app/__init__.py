"""Settings, wiring, command line, observability, local stack."""
