"""The public scores: everything in `septum.core.metrics`, under a shorter name."""

from septum.core.metrics import __all__ as __all__
from septum.core.metrics import __dir__ as __dir__
from septum.core.metrics import __getattr__ as __getattr__
