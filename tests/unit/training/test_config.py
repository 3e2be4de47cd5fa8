import dataclasses

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


@pytest.mark.parametrize(("epochs", "expected"), [(1, [1]), (5, [5]), (6, [5, 1]), (13, [5, 6, 2]), (15, [5, 6, 2, 2])])
def test_a_shortened_recipe_takes_its_first_epochs(epochs, expected):
    config = PRESETS["release"]("data.csv")

    shortened = config.shortened(epochs)

    assert [phase.epochs for phase in shortened.phases] == expected
    assert dataclasses.replace(shortened, phases=config.phases) == config


@pytest.mark.parametrize("epochs", [-1, 0, 16])
def test_a_recipe_is_not_made_longer(epochs):
    with pytest.raises(ValueError, match="15 epochs"):
        PRESETS["release"]("data.csv").shortened(epochs)


def test_a_run_is_resumed_as_it_was_started_or_with_another_end_at_a_constant_rate():
    constant, falling = PRESETS["paper"]("data.csv"), PRESETS["release"]("data.csv")

    assert constant.continues(constant)
    assert constant.shortened(4).continues(constant)
    assert constant.continues(constant.shortened(4))
    assert not dataclasses.replace(constant, seed=2).shortened(4).continues(constant)
    assert falling.continues(falling)
    assert not falling.shortened(4).continues(falling)
