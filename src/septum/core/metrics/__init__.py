"""The field's scores: arrays in, frozen records out; one file per family, imported by name.

``isbi`` (pixel, Rand, warping, V_Rand, V_Info of ISBI 2012) with ``warping`` below it · ``ctc`` (SEG, DET) ·
``matching`` (AP, F1, PQ, AJI and the types of error) · ``overlap`` (IoU, Dice) · ``surface`` (Hausdorff, mean
distance) · ``confidence`` (bootstrap intervals). This file imports none of them, so that nobody waits for a score
that is not used.
"""
