"""Engines that compute logits, the exports that they run, and the cache of these."""
