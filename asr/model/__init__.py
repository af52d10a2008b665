"""The acoustic model: tokens, latency settings, the network, its live step, checkpoints, export."""
