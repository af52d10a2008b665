"""Errors a user can act on: each message is one sentence that names the thing and the remedy."""


class RillError(Exception):
    """Base of every error that the command line shows as a sentence instead of a traceback."""


class AudioError(RillError):
    """Audio that cannot be read, or data that is none; names the file or the source."""


class CheckpointError(RillError):
    """A checkpoint folder that is missing, broken or of another shape than its config says."""


class ManifestError(RillError):
    """A manifest line that cannot be used; names the file and the line."""


class HotwordError(RillError):
    """A hot word that cannot be honored."""


class DeviceError(RillError):
    """A microphone or another audio device that cannot be opened or was lost."""


class RecipeError(RillError):
    """A training recipe with a key or a value that cannot be used."""


class TrainingError(RillError):
    """A training run that cannot start or go on."""


class LanguageModelError(RillError):
    """Text, settings or programs from which no language model can be made."""
