"""A green run of the notebooks means something: each thing that must fail is seen to fail, by the real command.

Small notebooks are made here, run in one go with the project's own
`notebooks/conftest.py` and `pyproject.toml`, and judged by the JUnit report.
"""

import base64
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import psutil
import pytest
from nbformat import NotebookNode, v4

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import notebook_rules as rules
from notebook_kernel import CELL_SECONDS

ROOT = Path(__file__).resolve().parent.parent
PNG_2_BY_1 = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAYAAAD0In+KAAAADklEQVR42mNgYPj/HwADAwH/5qp6pQAAAABJRU5ErkJggg=="
LISTEN = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
    "while True: s.accept()[0].close()"
)


# ---------------------------------------------------------------- notebooks


def stdout(text: str) -> NotebookNode:
    return v4.new_output("stream", name="stdout", text=text)


def result(text: str, **data: str) -> NotebookNode:
    return v4.new_output("execute_result", {"text/plain": text, **data}, execution_count=1)


def shown(**data: str) -> NotebookNode:
    return v4.new_output("display_data", {mime.replace("_", "/"): value for mime, value in data.items()})


def error(name: str, words: str) -> NotebookNode:
    return v4.new_output("error", ename=name, evalue=words, traceback=[f"{name}: {words}"])


def code(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = (), **metadata: Any) -> NotebookNode:
    cell = v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def stripped(cell: NotebookNode) -> NotebookNode:
    cell.outputs = []
    cell.metadata["stripped"] = True
    return cell


def notebook(*cells: NotebookNode) -> NotebookNode:
    """A notebook whose code cells were executed in order, but for the stripped ones."""
    made = v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), *cells])
    for number, cell in enumerate(rules.code_cells(made), 1):
        cell.execution_count = None if cell.metadata.pop("stripped", False) else number
    return made


FINE = "print('fine')"
MUST_FAIL = {
    "changed": notebook(
        code("print(2 + 2)", stdout("5\n")),
        code(
            "from IPython.display import HTML\nHTML('<b>1</b>')",
            result("<IPython.core.display.HTML object>", **{"text/html": "<b>2</b>"}),
        ),
        code("import os\nos.write(1, b'one\\n');", stdout("two\n")),
        code("import subprocess\nsubprocess.run(['echo', 'one']);", stdout("two\n")),
        code(FINE, stdout("fine\n")),
    ),
    "stripped": notebook(stripped(code("x = 1")), stripped(code(FINE))),
    "one_stripped": notebook(code(FINE, stdout("fine\n")), stripped(code("print('bare')"))),
    "raises": notebook(
        code("x = 1"), code("raise ValueError('oh')"), code(FINE, stdout("fine\n")), code(FINE, stdout("fine\n"))
    ),
    "raises_as_committed_but_untagged": notebook(code("raise ValueError('oh')", error("ValueError", "oh"))),
    "does_not_raise": notebook(
        code("x = 1", error("ValueError", "oh"), tags=("raises-exception",)),
        code("x = 1", tags=("raises-exception",)),
        code("x = 1", error("ValueError", "oh"), tags=("raises-exception", "nbval-ignore-output"), reason="varies"),
        code(FINE, stdout("fine\n")),
    ),
    "raises_otherwise": notebook(
        code("raise ValueError('now')", error("ValueError", "then"), tags=("raises-exception",)),
        code("raise KeyError('oh')", error("ValueError", "oh"), tags=("raises-exception",)),
        code("{}['x']", error("ValueError", "x"), tags=("raises-exception", "nbval-ignore-output"), reason="varies"),
    ),
    "kernel_dies": notebook(
        code(
            "import subprocess, pathlib\n"
            "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
            "_ = pathlib.Path('orphan.pid').write_text(str(child.pid))"
        ),
        code("import os\nos._exit(3)"),
        code(FINE, stdout("fine\n")),
    ),
    "kernel_is_killed": notebook(code("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"), code("x = 1")),
    "server_dies": notebook(
        code(
            "import socket, subprocess, sys\n"
            f"server = subprocess.Popen([sys.executable, '-c', {LISTEN!r}], stdout=subprocess.PIPE)\n"
            "port = int(server.stdout.readline())"
        ),
        code("socket.create_connection(('127.0.0.1', port)).close(); print('there')", stdout("there\n")),
        code("server.kill(); server.wait(); server.stdout.close()"),
        code("socket.create_connection(('127.0.0.1', port)).close(); print('there')", stdout("there\n")),
        code("print('last')", stdout("last\n")),
    ),
    "extra": notebook(
        code("print('more')"),
        code("print('one'); 2", stdout("one\n")),
        code("from IPython.display import display\ndisplay('a'); display('b')", shown(text_plain="'a'")),
        code("from IPython.display import Image\ndisplay(Image(filename='dot.png'))"),
    ),
    "missing": notebook(
        code("x = 1", stdout("1\n")),
        code("x = 1", result("1")),
        code("x = 1", shown(image_png=PNG_2_BY_1)),
        code("print('one')", stdout("one\n"), result("2")),
        code(
            "import base64, struct\nfrom IPython.display import display\n"
            f"png = base64.b64decode('{PNG_2_BY_1}')\n"
            "wide = png[:16] + struct.pack('>II', 640, 480) + png[24:]\n"
            "display({'image/png': base64.b64encode(wide).decode()}, raw=True)",
            shown(image_png=PNG_2_BY_1),
        ),
    ),
    "marks": notebook(
        code("# NBVAL_IGNORE_OUTPUT - because it varies\nprint('one')", stdout("one\n")),
        code("print('one')", stdout("one\n"), tags=("nbval-ignore-output",)),
        code("print('one')", stdout("two\n"), tags=("nbval-skip",)),
        code("# NBVAL_SKIP\nprint('one')", stdout("two\n")),
    ),
    "leaves_a_child": notebook(
        code(
            "import subprocess, pathlib\n"
            "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
            "_ = pathlib.Path('child.pid').write_text(str(child.pid))"
        )
    ),
    "differs_with_docker": notebook(code("print('one')", stdout("two\n"), tags=("needs-docker",))),
    "raises_though_ignored": notebook(
        code("raise ValueError('oh')", tags=("nbval-ignore-output",), reason="varies"), code("x = 1")
    ),
}

# Their outputs come from scripts/run_notebooks.py.
MUST_PASS = {
    "first": v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# Title"),
            code("total = 2 + 2\ntotal"),
            code("import matplotlib.pyplot as plt\nplt.plot([1, 2]);"),
            code("import os\nos.write(1, b'from C\\n');"),
            code("import subprocess; subprocess.run(['echo', 'from a child']);"),
            code("!echo from a shell"),
            code("import sys, time\nprint(time.time(), file=sys.stderr); os.write(2, str(time.time()).encode());"),
            code("open('/no/such/file')", tags=("raises-exception",)),
            code("time.time()", tags=("nbval-ignore-output",), reason="the time"),
            code("# NBVAL_IGNORE_OUTPUT\nos.getpid()", reason="a process id"),
            code("server = subprocess.Popen(['sleep', '300'], start_new_session=True)"),
            code("from IPython.display import HTML\nHTML('<table><tr><th>a</th></tr></table>')"),
            code("for number in range(3):\n    print(number)\n    print('noise', file=sys.stderr)"),
            code("server.kill(); server.wait()"),
            code(""),
        ]
    ),
    "second": v4.new_notebook(
        cells=[
            code("'total' in globals()"),
            code("print('kept')", stdout("from Docker\n"), tags=("needs-docker",)),
        ]
    ),
}


# ---------------------------------------------------------------- running them


@dataclass
class Run:
    """What one pytest process said."""

    status: int
    text: str
    cases: dict[str, list[tuple[str, str, str]]]
    """By notebook: name, outcome and message of each cell, in order; errors after a cell come as cells of their own."""

    def outcomes(self, notebook: str) -> list[str]:
        return [outcome for _, outcome, _ in self.cases[notebook]]

    def messages(self, notebook: str) -> list[str]:
        return [message for _, _, message in self.cases[notebook]]


def project(folder: Path, notebooks: dict[str, NotebookNode]) -> Path:
    """A folder like the project's, with other notebooks."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "scripts").mkdir()
    for file in ["pyproject.toml", "notebooks/conftest.py", "notebooks/sanitize.cfg"]:
        shutil.copy(ROOT / file, folder / file)
    for script in (ROOT / "scripts").glob("*n*.py"):
        shutil.copy(script, folder / "scripts")
    for name, content in notebooks.items():
        nbformat.write(content, folder / "notebooks" / f"{name}.ipynb")
    return folder


def environment(*, docker: bool, folder: Path) -> dict[str, str]:
    """One in which `docker version` does answer, or does not, whatever runs on this machine."""
    if not docker:
        return {**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:1"}
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


def run_pytest(cwd: Path, *arguments: str, env: dict[str, str]) -> Run:
    report = cwd / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
    ]
    temporary = Path(tempfile.mkdtemp(dir=cwd))
    done = subprocess.run(
        [*command, f"--junitxml={report}", *arguments],
        cwd=cwd,
        env={**env, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    cases: dict[str, list[tuple[str, str, str]]] = {}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        found = [part for part in case if part.tag in ("failure", "error", "skipped")]
        name = re.sub(r".*?(\w+)\.ipynb$", r"\1", case.get("classname", ""))
        for part in found or [None]:
            said = "passed" if part is None else part.tag
            words = "" if part is None else f"{part.get('message', '')}\n{part.text or ''}"
            cases.setdefault(name, []).append((case.get("name", ""), said, words))
    assert [path.name for path in temporary.glob("notebook-kernel-*")] == []
    return Run(done.returncode, done.stdout + done.stderr, cases)


@dataclass
class Runs:
    """One run of what must fail, and one of what must pass."""

    bad_folder: Path
    bad: Run
    good_folder: Path
    good: Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Both at the same time; the outputs of the good ones are first written by the real script."""
    bad_folder = project(tmp_path_factory.mktemp("bad"), MUST_FAIL)
    (bad_folder / "notebooks" / "dot.png").write_bytes(base64.b64decode(PNG_2_BY_1))
    good_folder = project(tmp_path_factory.mktemp("good"), MUST_PASS)
    with ThreadPoolExecutor() as pool:
        bad = pool.submit(run_pytest, bad_folder, "notebooks", env=environment(docker=True, folder=bad_folder))
        done = run_script(good_folder)
        assert done.returncode == 0, done.stdout + done.stderr
        good = run_pytest(good_folder, "notebooks", env=environment(docker=False, folder=good_folder))
        return Runs(bad_folder, bad.result(), good_folder, good)


@pytest.fixture(scope="module")
def bad(runs: Runs) -> Run:
    return runs.bad


@pytest.fixture(scope="module")
def good(runs: Runs) -> Run:
    return runs.good


@pytest.fixture(scope="module")
def good_folder(runs: Runs) -> Path:
    return runs.good_folder


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/run_notebooks.py", *arguments],
        cwd=folder,
        env=environment(docker=False, folder=folder),
        capture_output=True,
        text=True,
        timeout=110,
    )


# ---------------------------------------------------------------- what must fail


def test_each_of_them_fails(bad: Run) -> None:
    assert bad.status == 1
    green = [name for name in MUST_FAIL if not {"failure", "error"} & set(bad.outcomes(name))]
    assert green == []


def test_a_changed_output_fails_and_the_rest_is_still_compared(bad: Run) -> None:
    assert bad.outcomes("changed") == ["failure"] * 4 + ["passed"]
    assert bad.cases["changed"][0][0] == "cell 1: print(2 + 2)"
    assert "changed.ipynb, cell 1: print(2 + 2)" in bad.messages("changed")[0]


def test_a_cell_that_was_never_executed_fails(bad: Run) -> None:
    assert bad.outcomes("stripped") == ["failure"] * 2
    assert "the whole notebook has no outputs" in bad.messages("stripped")[0]
    assert bad.outcomes("one_stripped") == ["passed", "failure"]
    assert "never executed" in bad.messages("one_stripped")[1]


def test_an_error_fails_and_the_rest_is_skipped_with_the_reason(bad: Run) -> None:
    assert bad.outcomes("raises") == ["passed", "failure", "skipped", "skipped"]
    assert "ValueError" in bad.messages("raises")[1]
    assert "raises.ipynb is broken from cell 2: raise ValueError('oh') on" in bad.messages("raises")[3]
    assert "\x1b" not in bad.messages("raises")[1]
    assert "#x1B" not in bad.messages("raises")[1]


def test_an_error_fails_though_it_is_the_committed_one_or_ignored(bad: Run) -> None:
    assert bad.outcomes("raises_as_committed_but_untagged") == ["failure"]
    assert bad.outcomes("raises_though_ignored") == ["failure", "skipped"]


def test_a_tagged_cell_must_raise(bad: Run) -> None:
    assert bad.outcomes("does_not_raise") == ["failure"] * 3 + ["passed"]
    assert all("raised nothing" in message for message in bad.messages("does_not_raise")[:3])


def test_a_tagged_cell_must_raise_the_committed_error(bad: Run) -> None:
    assert bad.outcomes("raises_otherwise") == ["failure"] * 3
    assert "raised ValueError: now, not the committed error" in bad.messages("raises_otherwise")[0]


def test_a_dead_kernel_is_named_and_ends_the_notebook(bad: Run) -> None:
    assert bad.outcomes("kernel_dies")[:3] == ["passed", "failure", "skipped"]
    assert "the kernel died while this cell ran (exit status 3)" in bad.messages("kernel_dies")[1]
    assert bad.outcomes("kernel_is_killed") == ["failure", "skipped"]
    assert "(exit status -9)" in bad.messages("kernel_is_killed")[0]


def test_a_dead_server_fails_at_the_next_call(bad: Run) -> None:
    assert bad.outcomes("server_dies") == ["passed"] * 3 + ["failure", "skipped"]
    assert "ConnectionRefusedError" in bad.messages("server_dies")[3]


def test_extra_and_missing_outputs_fail(bad: Run) -> None:
    assert bad.outcomes("extra") == ["failure"] * 4
    assert "extra output: display_data of image/png" in bad.messages("extra")[3]
    assert bad.outcomes("missing") == ["failure"] * 5
    assert "missing output: display_data of image/png" in bad.messages("missing")[2]
    assert "2 x 1 pixels is now one of 640 x 480" in bad.messages("missing")[4]


def test_wrong_markers_unknown_tags_and_missing_reasons_fail(bad: Run) -> None:
    assert bad.outcomes("marks") == ["failure"] * 4
    expected = ["alone on its line", "without a reason", "unknown tag 'nbval-skip'", "alone on its line"]
    for words, message in zip(expected, bad.messages("marks"), strict=True):
        assert words in message


@pytest.mark.parametrize(("name", "file"), [("leaves_a_child", "child.pid"), ("kernel_dies", "orphan.pid")])
def test_a_child_left_behind_fails_and_is_ended(runs: Runs, name: str, file: str) -> None:
    bad = runs.bad
    pid = int((runs.bad_folder / "notebooks" / file).read_text())
    assert "error" in bad.outcomes(name)
    assert any(f"process {pid}: sleep 300" in message for message in bad.messages(name))
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_where_docker_answers_its_cells_are_compared(bad: Run) -> None:
    assert bad.outcomes("differs_with_docker") == ["failure"]


# ---------------------------------------------------------------- what must pass


def test_the_good_ones_pass_with_exact_counts(good: Run) -> None:
    assert good.status == 0, good.text
    assert (
        "2 notebooks, 15 code cells executed, 12 compared, 2 ignored, 1 needing Docker and not compared\n"
        "  ignored: first.ipynb, cell 8: the time\n"
        "  ignored: first.ipynb, cell 9: a process id\n"
        "  needs Docker: second.ipynb, cell 2: no Docker daemon answers\n"
    ) in good.text
    assert f"at most {CELL_SECONDS} s a cell" in good.text


def test_they_pass_from_the_notebooks_folder_and_one_by_one(good_folder: Path) -> None:
    env = environment(docker=False, folder=good_folder)
    selected = run_pytest(good_folder / "notebooks", "-k", "child or globals", env=env)
    assert selected.status == 0, selected.text
    assert selected.cases.keys() == {"first", "second"}
    assert selected.outcomes("first") == ["passed"]
    assert "2 notebooks, 2 code cells executed, 2 compared" in selected.text


def test_the_sanitizer_is_used_from_any_folder_and_a_slow_cell_is_interrupted(tmp_path: Path) -> None:
    dated = notebook(code("print('Took 12 microseconds')", stdout("Took 9 microseconds\n")))
    slow = notebook(code("while True: pass"), code(FINE, stdout("fine\n")))
    folder = project(tmp_path / "p", {"dated": dated, "slow": slow})
    (folder / "notebooks" / "sanitize.cfg").write_text("regex: (?<=Took )[0-9]+(?= microseconds)\nreplace: N\n")
    run = run_pytest(folder / "notebooks", "--nbval-cell-timeout=2", env=environment(docker=False, folder=folder))
    assert run.status == 1
    assert run.outcomes("dated") == ["passed"]
    assert run.outcomes("slow") == ["failure", "skipped"]
    assert "Timeout of 2 seconds exceeded" in run.messages("slow")[0]


def test_a_run_that_would_check_nothing_is_refused(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", {"words": v4.new_notebook(cells=[v4.new_markdown_cell("# Title")])})
    env = environment(docker=False, folder=folder)
    nothing = run_pytest(folder, "notebooks", env=env)
    assert nothing.status == 2
    assert "words.ipynb has no code cell" in nothing.text
    lax = run_pytest(folder, "--nbval-lax", "notebooks", env=env)
    assert lax.status == 4
    assert "--nbval-lax compares next to nothing" in lax.text


def test_another_nbval_is_refused(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", {"any": notebook(code("x = 1"))})
    record = tmp_path / "other" / "nbval-0.12.0.dist-info" / "METADATA"
    record.parent.mkdir(parents=True)
    record.write_text("Metadata-Version: 2.1\nName: nbval\nVersion: 0.12.0\n")
    run = run_pytest(folder, "notebooks", env={**os.environ, "PYTHONPATH": str(tmp_path / "other")})
    assert run.status == 4
    assert "nbval 0.12.0 is installed" in run.text


# ---------------------------------------------------------------- the script


def test_what_the_script_writes_is_clean_and_a_second_run_changes_nothing_that_is_compared(good_folder: Path) -> None:
    text = (good_folder / "notebooks" / "first.ipynb").read_text()
    written = nbformat.reads(text, as_version=4)
    assert text == rules.to_text(written)
    assert [cell.execution_count for cell in rules.code_cells(written)] == list(range(1, 14))
    assert [cell.id for cell in written.cells] == [cell.id for cell in MUST_PASS["first"].cells]
    assert [cell.outputs for cell in rules.code_cells(written)[2:4]] == [
        [stdout("from C\n")],
        [stdout("from a child\n")],
    ]
    assert '"name": "stderr"' not in text
    assert str(good_folder) not in text
    assert written.metadata.language_info == {"name": "python"}
    second = nbformat.read(good_folder / "notebooks" / "second.ipynb", as_version=4)
    assert second.cells[1].outputs == [stdout("from Docker\n")]
    assert run_script(good_folder, "--check").returncode == 0


def test_the_script_writes_nothing_that_failed(tmp_path: Path) -> None:
    names = ["raises", "does_not_raise", "kernel_is_killed", "marks"]
    folder = project(tmp_path / "p", {name: MUST_FAIL[name] for name in names})
    files = {name: folder / "notebooks" / f"{name}.ipynb" for name in names}
    before = {name: file.read_bytes() for name, file in files.items()}
    done = run_script(folder, *map(str, files.values()))
    assert done.returncode == 1
    assert {name: file.read_bytes() for name, file in files.items()} == before
    assert "raises.ipynb, cell 2, `raise ValueError('oh')`: ValueError: oh\nraises.ipynb: not written" in done.stdout
    assert "does_not_raise.ipynb: cell 1, `x = 1`: is tagged raises-exception, but its committed" in done.stdout
    assert "kernel_is_killed.ipynb, cell 1, `import os, signal`: the kernel died" in done.stdout
    assert "4 notebooks, 4 failed" in done.stdout
    assert not list((folder / "notebooks").glob(".*"))


def test_check_finds_what_is_not_as_the_script_writes_it(tmp_path: Path) -> None:
    folder = project(
        tmp_path / "p", {"stripped": MUST_FAIL["stripped"], "untidy": notebook(code(FINE, stdout("fine\n")))}
    )
    done = run_script(folder, "--check")
    assert done.returncode == 1
    assert "stripped.ipynb: has no outputs" in done.stdout
    assert "untidy.ipynb: is not as `make notebooks` writes it" in done.stdout


# ---------------------------------------------------------------- the rules, without a kernel


@pytest.mark.parametrize(
    "line",
    [
        "# NBVAL_IGNORE_OUTPUT - because",
        "#NBVAL_IGNORE_OUTPUT",
        "# nbval_ignore_output",
        "# NBVAL_IGNORE_OUTPUTS",
        "print(1)  # NBVAL_IGNORE_OUTPUT",
        "# NBVAL_SKIP",
        "# NBVAL_RAISES_EXCEPTION",
        "# PYTEST_NBVAL_IGNORE",
    ],
)
def test_a_marker_is_right_or_a_problem(line: str) -> None:
    wrong = notebook(code(f"{line}\nprint(1)", stdout("1\n"), reason="varies"))
    right = notebook(code(f"{rules.IGNORE_MARKER}\nprint(1)", stdout("1\n"), reason="varies"))
    assert "does not know the marker" in "".join(rules.problems(wrong))
    assert rules.problems(right) == []


def test_paths_of_the_machine_leave_the_tracebacks() -> None:
    root = Path.home() / "course"
    made = notebook(code("raise", error("RuntimeError", "none"), tags=("raises-exception",)))
    rules.code_cells(made)[0].outputs[0].traceback = [
        "File \x1b[32m/opt/some where/venv/lib/python3.11/site-packages/numpy/core.py:12\x1b[39m",
        "File /usr/lib/python3.12/json/decoder.py:355",
        f"File {root}/tfs_helpers/tensors.py:3",
        "File ~/course/tfs_helpers/tensors.py:3",
        "File ~/.venv/lib/python3.13/site-packages/grpc/a.py:1",
    ]
    rules.tidy(made, root)
    lines = rules.code_cells(made)[0].outputs[0].traceback
    assert lines[1:] == [
        "File .../python3/json/decoder.py:355",
        "File tfs_helpers/tensors.py:3",
        "File tfs_helpers/tensors.py:3",
        "File .../site-packages/grpc/a.py:1",
    ]
    assert lines[0].endswith(".../site-packages/numpy/core.py:12\x1b[39m")


def test_every_sanitizer_is_named_and_narrow() -> None:
    lines = (ROOT / "notebooks" / "sanitize.cfg").read_text(encoding="ascii").splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if line.startswith("regex:"):
            assert re.match(r"# [\w -]+: \w+", above), f"say above {line!r} what it is and why it is there"
            assert ".*" not in line
            assert ".+" not in line
