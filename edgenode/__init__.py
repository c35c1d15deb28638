"""A peer-to-peer mesh that runs background jobs."""

__version__ = "0.1.0"
