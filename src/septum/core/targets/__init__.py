"""Representations of labels that a network can learn, one file each.

======== ============================================================================== =================
file     what the network learns                                                        decoded into
======== ============================================================================== =================
border   foreground, with a border cut between touching instances (the paper's)          instances
rim      the core of each instance, the rim around it, background                        instances
classes  the class of every pixel                                                        class ids
======== ============================================================================== =================

- ``n_classes(largest_label)``: how many outputs K the network needs
- ``encode(labels)``: (Y, X) labels -> (Y, X) uint8 classes 0..K-1
- ``unsure(labels, unknown)``: (Y, X) bool, pixels whose class depends on what is not annotated
- ``loss(logits, classes, weights, normalization, total)``: tensors -> scalar

and for instances, used by `septum.core.decode`:

- ``seeds(probabilities, decoding)``: (K, Y, X) -> (Y, X) bool, each 8-connected component is one object
- ``extend(components, probabilities, decoding)``: numbered seeds -> labels, a function of a neighbourhood
- ``needed_reach(labels)``: the ``decoding.reach`` that training labels call for
- ``reach(decoding)``: the radius of that neighbourhood in pixels

All but ``loss`` work on arrays in NumPy, on the CPU.
"""

from septum.core.targets import border, classes, rim

TARGETS = {"border": border, "rim": rim, "classes": classes}
