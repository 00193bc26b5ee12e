"""Evaluation: the loop over clips, results of all ranks, tables and the page."""
