"""Settings and options that take one of a few words. Nothing is imported here, so that --help is quick."""

from typing import Literal

Kind = Literal["instances", "classes"]  # what the values of a label image mean
Recipe = Literal["fast", "paper"]
Device = Literal["auto", "cpu", "cuda", "mps"]
PaperExperiment = Literal["em", "dic-hela", "phc-u373"]
StreamFormat = Literal["zarr", "tiff"]  # of streamed results
StoredProbability = Literal["uint8", "float16"]
Statistics = Literal["image", "model"]  # where the brightness that an image is normalised with comes from
