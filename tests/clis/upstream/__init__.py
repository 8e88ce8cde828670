"""A provider that plays a script in four dialects, holds requests to the vendors' rules and keeps what it was asked."""

from .server import DIALECTS, Received, Upstream

__all__ = ["DIALECTS", "Received", "Upstream"]
