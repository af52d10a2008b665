"""How good a checkpoint is, and which settings suit it: error rates, tuning, calibration."""
