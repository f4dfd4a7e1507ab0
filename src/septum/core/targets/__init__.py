"""Representations of labels that a network can learn, one file each, all with the same four functions.

======== ============================================================================== =================
file     what the network learns                                                        decoded into
======== ============================================================================== =================
border   foreground, with a border cut between touching instances (the paper's)          instances
classes  the class of every pixel                                                        class ids
======== ============================================================================== =================

- ``n_classes(largest_label)``: how many outputs K the network needs
- ``encode(labels)``: (Y, X) labels -> (Y, X) uint8 classes 0..K-1
- ``loss(logits, classes, weights, normalization)``: tensors -> scalar
- ``decode(probabilities)``: (K, Y, X) -> (Y, X) int32 labels

``encode`` and ``decode`` work on whole images in NumPy, on the CPU.
"""

from septum.core.targets import border, classes

TARGETS = {"border": border, "classes": classes}
