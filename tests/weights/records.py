"""Records of SHA-256 digests, as sha256sum writes them."""

import hashlib

from stnet.weights.formats import record_text


def record_lines(contents):
    """The text of a .sha256 record for contents by relative name."""
    return record_text({name: hashlib.sha256(data).hexdigest() for name, data in contents.items()})
