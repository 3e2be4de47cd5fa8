import pytest

from training.config import PRESETS, TrainingConfig


@pytest.mark.parametrize("name", PRESETS)
def test_a_checkpoint_gives_back_the_configuration_it_was_started_with(name, tmp_path):
    config = PRESETS[name]("data.csv")
    (tmp_path / "config.json").write_text(config.to_json())

    assert TrainingConfig.load(tmp_path) == config


def test_paper_is_the_recipe_of_the_paper():
    config = PRESETS["paper"]("folder")

    assert [(phase.epochs, phase.image_size, phase.augmentation) for phase in config.phases] == [(50, 224, "paper")]
    assert (config.batch_size, config.optimizer, config.frozen_stages) == (54, "adam", ())
    assert config.save_h5
