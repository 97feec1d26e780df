"""The package's structure: imports run one way, and importing it stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rsprune

PACKAGE = Path(rsprune.__file__).parent
TESTS = Path(__file__).parent

# A module may import what stands before it, and its own parts. A room is named with the modules in it that stand
# elsewhere: the whole of a run ends with its report, which reads run folders.
ORDER = [
    "_core",
    "errors",
    "validation",
    "waiting",
    "options",
    "temporaries",
    "storage",
    "interrupts",
    "io",
    "tensors",
    "pixels",
    "decoding",
    "concurrency",
    "charts",
    "registry",
    "sources",
    "entropy",
    "encoders",
    "embedding_tables",
    "embeddings",
    "centroids",
    "assignment_gpu",
    "assignment",
    "calibration",
    "dedup",
    "apportion",
    "quotas",
    "select_options",
    "left_out",
    "selection",
    "strategies",
    "runners",
    "runs",
    "report",
    "export",
    "runs.prune",
    "runs.rehearsal",
    "runs.plan",
    "training",
    "evaluation",
    "experiments",
    "cli",
]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda p: p.name)
def test_no_test_imports_another(path):
    """What several of them need is a fixture of conftest.py, or stands in a module of its own."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [name for name in names if name.split(".")[-1].startswith("test_") or name == "conftest"]


def test_no_test_pins_the_wording_of_an_error():
    """`raises` of failures.py asserts its class and the values that it names; sentences are golden/messages.txt's."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.keyword) and node.arg == "match"), f"{path.name}, line {node.value.lineno}"


def room_of(parts: list[str]) -> str:
    """The room of a module, given by the parts of its name after ``rsprune``."""
    whole = ".".join(parts)
    return whole if whole in ORDER else parts[0]


def imported_rooms(path: Path) -> set[str]:
    """The rooms of rsprune that a file imports, wherever in the file."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            parts = node.module.split(".")
            if parts == ["rsprune"]:
                rooms |= {alias.name for alias in node.names}
            elif parts[0] == "rsprune":
                rooms |= {room_of([*parts[1:], alias.name]) for alias in node.names} if len(parts) == 2 else set()
                rooms.add(room_of(parts[1:]))
        elif isinstance(node, ast.Import):
            rooms |= {room_of(a.name.split(".")[1:]) for a in node.names if a.name.startswith("rsprune.")}
        elif isinstance(node, ast.ImportFrom) and node.level > 0:
            pytest.fail(f"{path} uses a relative import")
    return rooms - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = room_of(list(path.relative_to(PACKAGE).with_suffix("").parts))
    if room in ("__init__", "__main__"):
        return
    assert room in ORDER, f"{room} has no place in the order of imports"
    for other in imported_rooms(path):
        assert other == room or ORDER.index(other) < ORDER.index(room), f"{path} imports {other}, which stands above it"


def test_import_brings_in_nothing_heavy():
    heavy = ["torch", "pyarrow", "PIL", "typer", "rich", "fsspec", "timm", "diffusers"]
    code = f"import rsprune, sys; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_command_line_starts_without_what_its_commands_need():
    heavy = ["torch", "diffusers", "timm"]
    code = f"import rsprune.cli.app, sys; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def module_imports() -> dict[str, set[str]]:
    """The modules of rsprune that each module imports, wherever in its file."""
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("rsprune", *path.relative_to(PACKAGE).with_suffix("").parts)
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {one if one in files or one == "rsprune._core" else node.module for one in members}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = (found & files.keys()) - {name}
    return graph


def test_modules_import_in_no_circle():
    graph = module_imports()
    left = dict(graph)
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"a circle of imports runs through some of {sorted(left)}"


def test_functions_have_at_most_twelve_parameters():
    """Options travel in dataclasses; only the public keyword calls spell them out."""
    public = set(rsprune.__all__)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name not in public:
                count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)
                assert count <= 12, f"{path}: {node.name} has {count} parameters"


@pytest.mark.parametrize("folder", ["python/rsprune", "rust/core/src", "rust/py/src"])
def test_files_fit_in_the_head(folder):
    for path in sorted((PACKAGE.parents[1] / folder).rglob("*.[pr][ys]")):
        lines = len(path.read_text().splitlines())
        assert lines <= 500, f"{path} has {lines} lines"
