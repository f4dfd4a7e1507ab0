"""The method: arrays and tensors in, arrays and tensors out; no files, no prints, no globals."""
