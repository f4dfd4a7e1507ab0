from .core.metrics import *  # noqa: F403
