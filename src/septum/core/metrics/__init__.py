"""Scores: arrays in, frozen records out. One file per family, loaded on first use.

============ ===============================================================================================
family       what is in it
============ ===============================================================================================
matching     `match`: F1, average precision, panoptic quality, AJI; missed, invented, split, merged objects
overlap      `class_overlap`: IoU, Dice and pixel error of classes
surface      `surface_distance`: Hausdorff distance at 95 %, mean surface distance
ctc          SEG and DET of the Cell Tracking Challenge
isbi         pixel error, Rand error, warping error, V_Rand and V_Info of ISBI 2012; below it `warping`
confidence   `bootstrap`: the 95 % interval of a score; `compare`: that of a difference of two predictions
numbers      one score of one image: `f1`, `average_precision`, `panoptic_quality`, `aggregated_jaccard`,
             `seg`, `iou`, `dice`
============ ===============================================================================================

The functions in quotes are also names of this package: ``septum.metrics.match(truth, prediction)``.
In every other family, `pool` puts the scores of several images together.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
