"""The head of docs/plugins.md, as it is written there."""

import json
import re
from pathlib import Path

import pytest

from mtl_ray.plugin import Plugin
from tests.plugin.conftest import ROOT, Workplace

PAGE = (ROOT / "docs" / "plugins.md").read_text()
pytestmark = pytest.mark.jobs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A folder with the files of the page; it is the working directory, so it needs no
    PYTHONPATH.
    """
    folder = tmp_path_factory.mktemp("docs")
    for name, text in re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return Workplace(folder, path=())


def test_the_head_is_about_thirty_lines(place: Workplace) -> None:
    texts = [path.read_text() for path in sorted((place.folder / "my_heads").iterdir())]
    lines = [
        line
        for text in texts
        for line in text.splitlines()
        if line.strip() and not line.startswith(("from", "import"))
    ]
    assert len(texts) == 2
    assert len(lines) <= 32


def test_the_commands_of_the_page(place: Workplace) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    for line in block.strip().splitlines()[:-1]:  # the last one serves until it is stopped
        module, *arguments = line.removeprefix("python -m ").split()
        place.run(module, *arguments)
    best = json.loads((place.folder / "runs" / "my_heads" / "best.json").read_text())
    assert best["metric"] == "labels/mAP"
    signature = json.loads((place.folder / "bundle" / "signature.json").read_text())
    assert (signature["plugins"], signature["heads"]["labels"]["hidden"]) == (["my_heads"], 32)


def test_a_mistake_is_reported_with_its_line(place: Workplace) -> None:
    wrong = place.folder / "wrong.yaml"
    wrong.write_text(
        (place.folder / "my_heads.yaml").read_text().replace("hidden: 32", "hiden: 32")
    )
    said = place.run("jobs.train", "wrong.yaml", status=2)
    assert (
        "wrong.yaml:7: unknown key model.heads.labels.hiden; did you mean "
        "model.heads.labels.hidden?" in said
    )


def test_the_table_names_every_field_of_a_plugin() -> None:
    rows = re.findall(r"^\| [a-z ]+ \| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert set(rows) == set(Plugin.__dataclass_fields__)
    for module in re.findall(r"`(mtl_ray/[\w/]+\.py)`", PAGE):
        assert (Path(ROOT) / module).exists(), module
