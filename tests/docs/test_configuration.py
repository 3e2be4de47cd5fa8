import dataclasses
import re

from gateway.settings import PREFIX, Settings
from tests.processes import ROOT

TABLE_ROW = re.compile(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`|chosen|none) \| .+ \|$", re.MULTILINE)
# What a script takes from outside: VARIABLE with a default, or by name.
TAKEN = re.compile(r"\$\{([A-Z_]+):?-|choose_port ([A-Z_]+) \d")


def documented():
    return dict(TABLE_ROW.findall((ROOT / "docs" / "configuration.md").read_text()))


def test_the_table_of_the_gateway_is_its_settings():
    expected = {PREFIX + field.name.upper(): str(field.default) for field in dataclasses.fields(Settings)}

    assert {name: value for name, value in documented().items() if name.startswith(PREFIX)} == expected


def test_every_variable_that_the_scripts_take_is_documented():
    texts = [path.read_text() for path in (ROOT / "scripts").glob("*.sh")]
    taken = {first or second for text in texts for first, second in TAKEN.findall(text)}

    assert {"PORT", "MODEL_SERVER", "MODEL_BASE", "MODEL_PORT", "MODEL_REST_PORT", "RUN_DIR"} <= taken
    assert taken <= documented().keys()


def test_the_defaults_of_make_up_are_those_of_its_script():
    text = (ROOT / "scripts" / "up.sh").read_text() + (ROOT / "scripts" / "processes.sh").read_text()
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]+)\}", text)) | dict(re.findall(r"choose_port ([A-Z_]+) (\d+)", text))

    assert {"PORT", "MODEL_BASE", "MODEL_PORT", "MODEL_REST_PORT", "RUN_DIR"} == defaults.keys()
    assert defaults.items() <= documented().items()
