"""Many speakers at once: limits, sessions, protocols, metrics, Ray Serve."""
