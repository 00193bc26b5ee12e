"""Data preparation: lists from data sets, checking, packing, looking at clips. `python -m tools.dataset --help`."""
