"""What runs on GitHub: files that parse, no stored secret, and a command that reads pyproject.toml."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["campaigns", "docs", "publish", "tests", "wheels"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_may_read_alone_and_holds_no_secret(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    # Jobs that publish ask for what they need, and for nothing that writes into the repository.
    asked = set(re.findall(r"(\S+): write$", text, re.MULTILINE))
    assert asked == {"docs": {"pages", "id-token"}, "publish": {"id-token"}}.get(path.stem, set())


def test_the_lowest_torch_is_that_of_pyproject() -> None:
    (command,) = re.findall(r"\$\((sed -n .*? pyproject\.toml)\)", (WORKFLOWS[3]).read_text(encoding="utf-8"))
    found = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dependencies"] == [f"torch>={found.strip()}"]
    assert found.strip()


def test_hooks_and_forms_parse() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [hook["id"] for repo in hooks["repos"] for hook in repo["hooks"]] == [
        *("ruff-check", "ruff-format", "mypy", "tables")
    ]
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"] and form["description"] and form["body"]
