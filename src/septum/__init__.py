"""Septum learns to segment biomedical images from a few annotated ones.

The public names are listed in ``__init__.pyi``. Each is loaded on first use, so that ``import septum`` is quick.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
