"""Every setting of a training is shown with its value and explained."""

from septum.config import TrainConfig, UNetConfig
from septum.report.settings import MEANINGS, dotted, settings_table


def test_every_setting_is_explained_and_nothing_else():
    config = TrainConfig(unet=UNetConfig())
    assert MEANINGS.keys() == dotted(config.model_dump()).keys()


def test_the_table_shows_the_values_of_the_run_and_is_folded():
    config = TrainConfig(unet=UNetConfig(base_channels=7), learning_rate=0.125)
    table = settings_table(config)
    values = {row[0]: row[1] for row in table.rows}
    assert (values["unet.base_channels"], values["learning_rate"], values["recipe"]) == ("7", "0.125", "fast")
    assert table.folded
