"""The loops, and what keeps them alive."""
