"""Evaluation: the loop over clips, results over all ranks, tables and the page."""
