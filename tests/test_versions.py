"""One place says which versions belong together; every other file that names one agrees with it."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pins
import pytest
import tomli
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import tfs_helpers
from tfs_helpers import versions

ROOT = Path(__file__).parent.parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
TOGETHER = {
    "tensorflow": versions.TENSORFLOW,
    "tensorflow-cpu": versions.TENSORFLOW,
    "tensorflow-serving-api": versions.SERVING_API,
}
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = (ROOT / "requirements.txt").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"]


def direct() -> list[Requirement]:
    project = PROJECT["project"]
    texts = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        texts += extra
    return [Requirement(text) for text in texts]


def conda() -> tuple[str, list[str]]:
    """The Python of environment.yml, and what it gives to pip."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(entry for entry in dependencies if isinstance(entry, str) and entry.startswith("python="))
    return python.removeprefix("python="), next(entry["pip"] for entry in dependencies if isinstance(entry, dict))


def test_the_versions_that_belong_together_are_one() -> None:
    assert versions.TENSORFLOW == versions.SERVING_API
    assert f"tensorflow/serving:{versions.TENSORFLOW}" == versions.IMAGE
    assert f"{versions.IMAGE}-gpu" == versions.IMAGE_GPU


def test_the_package_tells_its_own_version() -> None:
    assert tfs_helpers.__version__ == PROJECT["project"]["version"]


def test_pyproject_names_them() -> None:
    named = [(r.name, str(r.specifier)) for r in direct() if r.name in TOGETHER]
    assert {name for name, _ in named} == {"tensorflow", "tensorflow-serving-api"}
    for name, specifier in named:
        assert specifier == f"=={TOGETHER[name]}", name


@pytest.mark.parametrize("python", PYTHONS)
def test_requirements_pin_every_direct_dependency_as_pyproject_asks(python: str) -> None:
    pinned = pins.versions(REQUIREMENTS, python)
    for requirement in direct():
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} against {version}"
    assert pinned["tensorflow"] == versions.TENSORFLOW
    assert pinned["tensorflow-serving-api"] == versions.SERVING_API


def test_requirements_are_exact_and_hashed() -> None:
    entries = [e for e in re.split(r"\n(?=\S)", REQUIREMENTS) if not e.startswith("#")]
    assert len(entries) > 100
    for entry in entries:
        first = entry.splitlines()[0]
        assert re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[^ *]+ (; .+ )?\\$", first), first
        assert re.search(r"^ +--hash=sha256:[0-9a-f]{64}( \\)?$", entry, re.M), f"no hash: {first}"


def test_requirements_name_no_host_and_no_place() -> None:
    found = re.findall(
        r"^.*(?:://|--(?:extra-)?index|--find-links|--trusted| @ |file:|(?<!\S)[/~.]\S).*$", REQUIREMENTS, re.M
    )
    assert found == []


def test_environment_yml_says_what_requirements_say() -> None:
    python, entries = conda()
    assert python == pins.CONDA_PYTHON
    assert "-e ." in entries
    named = {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, entries[1:])}
    wanted = {
        canonicalize_name(r.name) for r in direct() if r.marker is None or r.marker.evaluate({"python_version": python})
    }
    assert set(named) == wanted
    pinned = pins.versions(REQUIREMENTS, python)
    for name, specifier in named.items():
        assert specifier == f"=={pinned[name]}", f"{name}: run `make pins`"


def imported(path: Path) -> set[str]:
    """The top-level names that a Python file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_what_is_imported_is_a_direct_dependency() -> None:
    ours = {"tfs_helpers", *(path.stem for folder in ("scripts", "tests") for path in (ROOT / folder).rglob("*.py"))}
    providers = packages_distributions() | {"google": ["protobuf"]}
    wanted = {canonicalize_name(requirement.name) for requirement in direct()}
    wrong = []
    for folder in ("tfs_helpers", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in imported(path) - ours - sys.stdlib_module_names:
                found = {canonicalize_name(distribution) for distribution in providers.get(name, [name])}
                if not found & wanted:
                    wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert wrong == []


def test_carrying_pins_over_changes_versions_and_nothing_else() -> None:
    before = "- -e .\n- six==1.0  # why\n- python=3.12\n"
    assert pins.carry_over(before, "six==1.17.0 \\\n    --hash=sha256:00\n") == before.replace("1.0", "1.17.0")
    with pytest.raises(KeyError, match="seven"):
        pins.carry_over("- seven==1\n", "six==1.17.0\n")


def test_the_supported_pythons_are_the_same_everywhere() -> None:
    supported = SpecifierSet(PROJECT["project"]["requires-python"])
    for minor in range(30):
        assert supported.contains(f"3.{minor}") == (f"3.{minor}" in PYTHONS)
    classifiers = [c.rsplit(" ", 1)[1] for c in PROJECT["project"]["classifiers"] if "Python :: 3." in c]
    assert classifiers == PYTHONS
    setup = (ROOT / "scripts" / "setup.sh").read_text()
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in setup
    assert "sys.version_info < (3, 10)" in setup
    assert "sys.version_info >= (3, 14)" in setup


def named_versions(text: str) -> list[tuple[str, str]]:
    """Each (what, version) that a text names: images by tag, packages by `==`."""
    images = re.findall(r"tensorflow/serving:(\d[\w.-]*\w)", text)
    packages = re.findall(r"(tensorflow(?:-cpu|-serving-api)?) ?== ?(\d[\w.]*\w)", text)
    return [("image", tag) for tag in images] + packages


def texts() -> list[Path]:
    """Every file of ours that could name a version; CHANGELOG.md tells the past."""
    found = [ROOT / "Makefile", ROOT / "environment.yml", *ROOT.glob("*.md")]
    for folder in ("docker", "notebooks", "scripts", "tfs_helpers", "benchmarks"):
        found += [
            p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix not in {".pyc", ".png", ".binpb", ".pb"}
        ]
    return [p for p in found if p.name != "CHANGELOG.md" and "models" not in p.relative_to(ROOT).parts]


def test_no_other_file_names_another_version() -> None:
    image = versions.IMAGE.partition(":")[2]
    right = {"image": {image, f"{image}-gpu"}} | {name: {version} for name, version in TOGETHER.items()}
    seen, wrong = 0, []
    for path in texts():
        for what, version in named_versions(path.read_text(errors="replace")):
            seen += 1
            if version not in right[what]:
                wrong.append(f"{path.relative_to(ROOT)}: {what} {version}")
    assert wrong == []
    assert seen >= 4  # versions.py and environment.yml at least


def test_a_version_in_a_document_is_seen() -> None:
    text = "docker pull tensorflow/serving:2.19.0. Then `pip install tensorflow==2.18.1`, tensorflow/serving:latest"
    assert named_versions(text) == [("image", "2.19.0"), ("tensorflow", "2.18.1")]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))


def test_make_calls_only_what_is_there() -> None:
    programs = re.findall(r"scripts/[\w.]+", MAKEFILE)
    assert len(programs) >= 6
    programs += [f"{module}/__main__.py" for module in re.findall(r"-m (\w+)", MAKEFILE)]
    assert [p for p in programs if not (ROOT / p).is_file()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_promise_only_what_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (ROOT / link).exists()] == []
    promised = set(re.findall(r"(?:`|^ *\$? *)make ([a-z-]+)", text, re.M))
    assert promised <= targets()


def test_readme_tells_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make lab" in readme
    assert "make test" in readme


def test_the_changelog_is_ready_for_the_next_change() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"
    assert all(Version(heading) <= Version(PROJECT["project"]["version"]) for heading in headings[1:])
