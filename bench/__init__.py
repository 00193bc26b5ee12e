"""Measurements to run by hand: how fast parts of the project are on a machine."""
