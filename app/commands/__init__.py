"""The commands of `simstream`, a module per family; app/cli.py joins them."""
