import subprocess
import sys

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from septum.config import Decoding, UNetConfig
from septum.core.augment import Geometry, warp_labels
from septum.core.decode import finish
from septum.core.loss import weighted_cross_entropy
from septum.core.targets import border
from septum.core.tiling import ArraySource, read_mirrored
from septum.core.unet import UNet
from septum.core.weight_map import weight_map

LABELS = np.array([[1, 0, 2]])
LOGITS = torch.zeros(1, 2, 3, 4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: weight_map(LABELS, LABELS, ignore=np.zeros((2, 3), bool)),  # classes of another shape
        lambda: weight_map(LABELS, ignore=np.zeros((1, 3))),  # not bool
        lambda: weighted_cross_entropy(LOGITS, torch.zeros(1, 3, 5, dtype=torch.int64), torch.ones(1, 3, 5)),
        lambda: weighted_cross_entropy(LOGITS, torch.zeros(1, 3, 4), torch.ones(1, 3, 4)),  # classes that are floats
        lambda: border.seeds(np.zeros((3, 5, 5)), Decoding()),  # three classes, not two
        lambda: finish("border", np.zeros((4, 4), np.int32), np.zeros((2, 5, 4)), Decoding()),
        lambda: warp_labels([torch.zeros(4, 4)], torch.zeros(1, 2, 2, 3)),  # a grid in three dimensions
        lambda: Geometry(np.eye(2), np.zeros((2, 3, 4))),  # nodes that are no square
        lambda: ArraySource(np.zeros((4, 4))),  # no channels
        lambda: UNet(UNetConfig(depth=1, base_channels=2))(torch.zeros(1, 1, 20, 20, dtype=torch.int64)),
    ],
)
def test_a_wrong_shape_or_type_fails_where_it_is_passed(call):
    with pytest.raises(TypeCheckError, match="Type-check error whilst checking the parameters"):
        call()


def test_a_result_of_another_shape_fails():
    class Flat:
        shape, chunk = (1, 4, 4), (4, 4)

        def read(self, region):
            return np.zeros((4, 4))

    with pytest.raises(TypeCheckError, match="Type-check error whilst checking the return value"):
        read_mirrored(Flat(), (slice(0, 4), slice(0, 4)))


def test_the_package_runs_without_the_checkers():
    code = (
        "import sys; sys.modules |= {'jaxtyping': None, 'beartype': None}\n"
        "import septum.cli, septum.training.files, septum.prediction.files\n"
        "print(septum.weight_map([[1, 0, 2]])[0, 1].round(3))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "10.231\n", ran.stderr
