"""Scripts that measure this project beside its peers; no part of the package."""
