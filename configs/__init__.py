"""The configurations that are shipped: read them by name with ``spr.Config.named``."""
