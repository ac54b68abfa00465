"""The C code by itself, what is built from it, and what happens where nothing can be built."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipapp
import zipfile
from pathlib import Path

import pytest
from programs import tool
from support import ROOT

from pysock._freezing import get_hook_dirs
from pysock.engine.said import REINSTALL

CSRC = ROOT / "csrc"

SYSTEM_CALLS = {
    *("socket", "bind", "listen", "connect", "accept", "accept4", "recv", "recvfrom", "recvmsg", "send", "sendto"),
    *("sendmsg", "getsockopt", "setsockopt", "epoll_create1", "epoll_ctl", "epoll_wait", "poll", "ppoll", "pipe2"),
    *("timerfd_create", "timerfd_settime"),
    *("read", "write", "close", "unlink", "malloc", "realloc", "calloc", "free"),
}

WARNING = "installing WITHOUT the native engine"


def missing(what: str) -> None:
    """Skip, or fail where CI wants the native engine."""
    if os.environ.get("PYSOCK_REQUIRE_NATIVE") == "1":
        pytest.fail(f"{what}, and PYSOCK_REQUIRE_NATIVE=1")
    pytest.skip(f"{what}: nothing of the C code has been tested here")


def run(*command: str | Path, cwd: Path, **changes: str) -> tuple[int, str]:
    """Exit code and output. No engine is asked for, and no extra of ours is in the way."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYSOCK_BACKEND", "PYTHONPATH")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**env, **changes},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def compiler() -> str:
    if sys.platform != "linux":
        missing("this isn't Linux")
    for name in ("cc", "make"):
        if shutil.which(name) is None:
            missing(f"{name} isn't installed")
    return "cc"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, made where no engine is built: it must be the same."""
    folder = tmp_path_factory.mktemp("sdist")
    leave_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__", "_engine.c")
    shutil.copytree(ROOT, folder / "checkout", ignore=leave_out)
    script = folder / "checkout" / "csrc" / "build_engine.py"
    text = script.read_text()
    assert '"-O3"' in text
    script.write_text(text.replace('"-O3"', '"-O0"'))  # what is built of it here is never asked to be fast
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    code, output = run(sys.executable, "-c", build, folder, cwd=folder / "checkout", PYSOCK_BUILD="skip")
    assert code == 0, output
    (found,) = folder.glob("pysock_engine-*.tar.gz")
    return found


# The C code


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_c_tests_under_sanitizers(compiler):
    code, output = run("make", "check", "-j2", cwd=CSRC)
    assert code == 0, output[-10000:]
    assert "SKIPPED" not in output
    for test in (ROOT / "tests" / "c").glob("test_*.c"):
        assert f"asan {test.stem}" in output


def test_every_c_test_is_a_file_of_its_own():
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "c").glob("test_*.c")}
    assert tested >= {"frame", "table", "state", "timers", "engine", "output", "client", "threads"}


def named(path: Path) -> str:
    return str(path.relative_to(CSRC))


SOURCES = sorted(CSRC.rglob("*.[ch]"))


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_python_is_known_to_one_folder_by_one_door(path):
    includes = re.findall(r'#include [<"](.*)[>"]', path.read_text())
    assert ("Python.h" in includes) == (named(path) == "python/python.h")
    assert "python/python.h" not in includes or path.parent.name == "python"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_system_calls_are_made_in_sys_c_alone(path):
    if path.name in ("sys.c", "sys.h"):
        return
    code = re.sub(r"/\*.*?\*/|\"[^\"\n]*\"", "", path.read_text(), flags=re.DOTALL)
    called = set(re.findall(r"(?<![\w.>])(\w+)\(", code))
    ours = set(re.findall(r"^static [^\n;=(]*?(\w+)\(", code, re.MULTILINE))
    assert called & SYSTEM_CALLS <= ours


def test_errno_is_read_in_sys_c_alone():
    for path in SOURCES:
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert path.name == "sys.c" or not re.search(r"(?<![<\w])errno\b(?!\.h)(?! %d)", code), path.name


# The extension


def test_the_extension_exports_its_init_function_and_nothing_else():
    spec = importlib.util.find_spec("pysock._engine")
    if spec is None or spec.origin is None:
        missing("the native engine isn't built")
    code, output = run(tool("nm"), "-D", "--defined-only", str(spec.origin), cwd=ROOT)
    assert code == 0, output
    names = {line.split()[-1] for line in output.splitlines()}
    assert {name for name in names if not name.startswith("__")} == {"PyInit__engine"}  # ASan's begin with __


# The distribution


def test_a_source_distribution_has_what_it_takes(source):
    with tarfile.open(source) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    csrc = {str(path.relative_to(ROOT)) for path in CSRC.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert csrc == {name for name in names if name.startswith("csrc/")}
    assert names >= {
        *("pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md"),
        *("pysock/docs/guide.md", "pysock/examples/client.js", "bench/README.md"),
        *("pysock/py.typed", "pysock/_engine.pyi", "pysock/engine/native/engine.py", "pysock/examples/upper.py"),
        *("tests/conftest.py", "tests/help/support.py", "tests/facade/test_server.py"),
        *("tests/c/check.h", "tests/c/test_frame.c"),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "bench").rglob("*.[pc]*") if path.suffix in (".py", ".c")),
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith((".so", ".o", "/_engine.c"))]


def backend_of(python: str | Path, site: Path | None = None) -> str:
    # -S: without site-packages, where an editable installation would put its own extension in the way.
    options, changes = ([], {}) if site is None else (["-S"], {"PYTHONPATH": str(site)})
    program = "import pysock; print(pysock.backend)"
    code, output = run(python, "-Wignore", *options, "-c", program, cwd=Path("/"), **changes)
    assert code == 0, output
    return output.strip()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_skip_installs_the_pure_engine(source, tmp_path, socket_dir):
    code, output = run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    assert code == 0, output
    python = tmp_path / "venv" / "bin" / "python"
    code, output = run(python, "-m", "pip", "install", "-v", source, cwd=tmp_path, PYSOCK_BUILD="skip")
    assert code == 0, output
    assert WARNING not in output
    assert run(python, "-Wignore", "-c", FROZEN, "auto", cwd=socket_dir) == (0, "HELLO pure 16777216\n")


def install_without_compiler(source: Path, site: Path, build: str) -> tuple[int, str]:
    """With this Python's setuptools and cffi, into a directory."""
    pip = (sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", "--target", site)
    return run(*pip, source, cwd=site.parent, PYSOCK_BUILD=build, CC="false")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_auto_goes_on_without_a_compiler_and_says_so(source, tmp_path):
    code, output = install_without_compiler(source, tmp_path / "site", "auto")
    assert code == 0, output
    assert output.count(WARNING) == 1
    assert backend_of(sys.executable, tmp_path / "site") == "pure"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_require_fails_without_a_compiler(source, tmp_path, compiler):
    code, output = install_without_compiler(source, tmp_path / "site", "require")
    assert code != 0
    assert WARNING not in output
    assert "'false'" in output
    assert not (tmp_path / "site" / "pysock").exists()


@pytest.fixture
def checkout(source, tmp_path):
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return next(path for path in tmp_path.iterdir() if path.is_dir())


def build_wheel(checkout, build, **changes):
    """With this Python's setuptools; the name of the wheel, and what is in it."""
    folder = checkout / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    program = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    code, output = run(sys.executable, "-c", program, folder, cwd=checkout, PYSOCK_BUILD=build, **changes)
    assert code == 0, output
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name, set(archive.namelist())


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_build_that_fails_leaves_no_older_extension(checkout, compiler):
    """In one checkout: built well, then changed, then with a compiler that fails; in place, and as a wheel."""
    in_place = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    code, output = run(*in_place, cwd=checkout, PYSOCK_BUILD="require")
    assert code == 0, output
    assert list((checkout / "pysock").glob("_engine*.so"))
    name, files = build_wheel(checkout, "require")
    assert "none-any" not in name
    assert [file for file in files if file.startswith("pysock/_engine.") and file.endswith(".so")]

    changed = checkout / "csrc" / "base" / "state.c"
    changed.write_text(changed.read_text() + "/* changed */")
    code, output = run(*in_place, cwd=checkout, PYSOCK_BUILD="auto", CC="false")
    assert code == 0, output
    assert WARNING in output
    assert not list((checkout / "pysock").glob("_engine*.so"))
    name, files = build_wheel(checkout, "auto", CC="false")
    assert name.endswith("-py3-none-any.whl")
    assert not [file for file in files if file.endswith(".so")]


@pytest.mark.slow
def test_modules_that_are_gone_are_not_shipped(checkout):
    old = checkout / "build" / "lib" / "pysock" / "gone.py"
    old.parent.mkdir(parents=True)
    old.write_text("")
    name, files = build_wheel(checkout, "skip")
    assert name.endswith("-py3-none-any.whl")
    assert "pysock/gone.py" not in files
    assert "pysock/server.py" in files
    assert {file for file in files if file.startswith("pysock/docs/")} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "pysock" / "docs").iterdir()
    }
    assert "pysock/examples/client.js" in files


def test_what_our_texts_advise_is_one_command():
    wanted = "PYSOCK_BUILD=require pip install --no-cache-dir --force-reinstall --no-binary pysock-engine"
    assert wanted in REINSTALL
    for path in ("setup.py", "pysock/docs/engines.md"):
        assert wanted in re.sub(r'"?\s*\n\s*"', "", (ROOT / path).read_text()), path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_remedy_works_beside_a_cached_wheel_without_the_engine(source, checkout, tmp_path, compiler):
    """What pip's cache would give again: a wheel that was made where no compiler was. From an index in a folder."""
    name, _ = build_wheel(checkout, "auto", CC="false")
    index = tmp_path / "index"
    index.mkdir()
    shutil.copy(source, index)
    shutil.copy(checkout / "wheels" / name, index)
    for options, built in ((["--no-binary", "pysock-engine"], 1), ([], 0)):
        site = tmp_path / f"site-{built}"
        pip = (sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", site, "--pre")
        pip += ("--no-cache-dir", "--force-reinstall", "--no-index", "--find-links", index, *options, "pysock-engine")
        code, output = run(*pip, cwd=tmp_path, PYSOCK_BUILD="require")
        assert code == 0, output
        assert len(list((site / "pysock").glob("_engine*.so"))) == built


def test_another_choice_is_an_error(checkout):
    code, output = run(sys.executable, "setup.py", "--version", cwd=checkout, PYSOCK_BUILD="maybe")
    assert code == 1
    assert "PYSOCK_BUILD=maybe: choose one of auto, require, skip" in output


# Programs that are frozen, or run out of an archive

FROZEN = """
import sys, pysock
server = pysock.Server("unix:s", backend=sys.argv[1])

@server.service
def upper(client, request):
    return request.upper()

with server, pysock.connect("unix:s", backend=sys.argv[1]) as client:
    print(client.request(b"hello").decode(), server.backend, pysock.Limits().max_payload)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_pyinstaller_freezes_a_server_without_options(tmp_path, socket_dir):
    pytest.importorskip("PyInstaller")
    program = tmp_path / "program.py"
    program.write_text(FROZEN)
    places = ("--distpath", tmp_path / "dist", "--workpath", tmp_path / "work", "--specpath", tmp_path)
    command = (sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", *places, program)
    code, output = run(*command, cwd=tmp_path, PYTHONPATH=str(ROOT), PYINSTALLER_CONFIG_DIR=str(tmp_path / "config"))
    assert code == 0, output
    engines = ["pure"] if importlib.util.find_spec("pysock._engine") is None else ["native", "pure"]
    for engine in engines:
        done = run(tmp_path / "dist" / "program" / "program", engine, cwd=socket_dir)
        assert done == (0, f"HELLO {engine} 16777216\n")


def test_the_hook_is_where_pyinstaller_looks():
    """As its manual says: an entry point of the group pyinstaller40."""
    entry = '[project.entry-points.pyinstaller40]\nhook-dirs = "pysock._freezing:get_hook_dirs"'
    assert entry in (ROOT / "pyproject.toml").read_text()
    (folder,) = get_hook_dirs()
    hook = runpy.run_path(os.path.join(folder, "hook-pysock.py"))
    for name in set(hook["hiddenimports"]) - {"_cffi_backend"}:
        assert importlib.util.find_spec(name), name


def test_out_of_an_archive_the_pure_engine_runs(tmp_path, socket_dir):
    """An extension can't be loaded from a zip (zipimport): a zipapp has the pure engine, and says so."""
    shutil.copytree(ROOT / "pysock", tmp_path / "app" / "pysock", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "app" / "__main__.py").write_text(FROZEN)
    archive = tmp_path / "app.pyz"
    zipapp.create_archive(tmp_path / "app", archive)
    code, output = run(sys.executable, "-S", archive, "auto", cwd=socket_dir)
    assert code == 0, output
    assert "HELLO pure" in output
    assert "pure-Python engine, because the native one wasn't built" in output
