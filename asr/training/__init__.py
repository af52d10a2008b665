"""Corpora to checkpoints: preparation, batches, augmentation, losses, optimizer, trainer, language models."""
