"""Version of the package; tags carry the same number."""

__version__ = "0.1.0"
