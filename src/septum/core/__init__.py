"""The method: arrays and tensors in, arrays and tensors out; no files, no prints, no globals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["metrics"])
