import pytest

from septum.config import TrainConfig, UNetConfig
from septum.errors import ConfigError

CONFIG = TrainConfig(unet=UNetConfig())


def test_a_dotted_name_reaches_into_a_nested_setting_and_leaves_the_rest():
    changed = CONFIG.with_changes({"unet.depth": 3, "patch": 100})
    assert (changed.unet.depth, changed.patch) == (3, 100)
    assert changed.with_changes({"unet.depth": 4, "patch": 260}) == CONFIG


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"unet.dept": 3}, "UNetConfig has no setting 'dept'; did you mean 'depth'"),
        ({"unit.depth": 3}, "TrainConfig has no setting 'unit'; did you mean 'unet'"),
        ({"steps.x": 1}, "TrainConfig.steps is a single value, so there is no 'steps.x'; set 'steps'"),
        ({"unet.depth.x": 1}, "UNetConfig.depth is a single value"),
        ({"seed": 2**63}, "TrainConfig.seed should be less than"),
        ({"learning_rate": -1}, "TrainConfig.learning_rate should be greater than 0, got -1"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(ConfigError) as error:
        CONFIG.with_changes(change)
    assert str(error.value).startswith(sentence)
