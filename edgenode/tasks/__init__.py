"""The tasks every node has. Importing this package registers them.

Node and worker start with it, so Pillow and cryptography are imported by the first job that needs them.
"""

from edgenode.tasks import basic, chain, enrich, image, pi

__all__ = ["basic", "chain", "enrich", "image", "pi"]
