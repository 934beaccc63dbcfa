"""Compiling the kernel, for other vector widths too, and what happens where that is not possible."""

import ctypes
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparse_bench.kernels import build, cpu, linear, lstm
from tests.kernels.problems import (
    assert_bfloat_lstm,
    assert_close,
    assert_same_lstm,
    assert_same_numbers,
    expected,
    lstm_problem,
    problem,
    results,
)


@pytest.mark.parametrize("width", [16, 64])
def test_other_vector_widths(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "kernel.so"
    sources = map(str, sorted(build._SOURCES.glob("*.cpp")))
    flags = ["-std=gnu++17", "-O0", "-w", "-shared", "-fPIC", f"-DVECTOR_BYTES={width}", *sources, "-o", str(library)]
    subprocess.run([build.compiler(), *flags], check=True)
    monkeypatch.setattr(cpu, "load_library", lambda: ctypes.CDLL(str(library)))
    monkeypatch.setattr(lstm, "load_library", lambda: ctypes.CDLL(str(library)))
    cpu._library.cache_clear()
    lstm._library.cache_clear()
    try:
        assert cpu._library().vector_bytes() == width
        for size in [(70, 90, 77, 0.3), (33, 17, 5, 0.5), (300, 200, 100, 0.4)]:
            structure, x, values, bias, grad = problem(*size)
            actual = results(structure, x, values, bias, grad, "kernel")
            assert_close(actual, expected(structure, x, values, bias, grad))
            assert_same_numbers((structure, x, values, bias, grad))
        layer = lstm_problem(steps=3, batch=21, inputs=7, hidden=37, density=0.2)
        assert_same_lstm(layer, "kernel")
        assert_bfloat_lstm(3, 21, 37, 0.2)
    finally:
        cpu._library.cache_clear()
        lstm._library.cache_clear()


def test_missing_compiler_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build._compiled()
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho cannot find your headers >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(build.BuildError, match="cannot find your headers"):
        build._compiled()
    assert not list(tmp_path.glob("**/*.so"))


def test_without_a_home_csr_is_used_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where there is no home
    cached = [build.load_library, cpu._library, cpu.kernel_available, linear.kernel_or_csr]
    for function in cached:
        function.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="'csr' is used instead: .*set HOME or XDG_CACHE_HOME"):
            assert linear.kernel_or_csr("cpu") == "csr"
    finally:
        for function in cached:
            function.cache_clear()


def test_a_kernel_of_one_thread_is_said_to_be_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = small_compiler(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(compiler))
    build.load_library.cache_clear()
    try:
        for _ in range(2):
            assert not build.load_library().has_threads()
    finally:
        build.load_library.cache_clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sparse_bench", "without_openmp"]
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    for part in ("one thread", f"{compiler} has no OpenMP", "libgomp", "libomp-dev", f"remove {tmp_path}"):
        assert part in warning.getMessage()


def content_of(library: Path) -> str:
    return library.read_text(errors="replace")


def test_of_two_processes_at_once_one_compiles_and_both_find_a_whole_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiled, other_waits = [], threading.Event()

    def compile_slowly(cxx: str, target: Path) -> None:
        compiled.append(target)
        target.write_text("half")
        other_waits.wait(0.5)  # without a lock the other one compiles too
        target.write_text("half and half")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "_compile", compile_slowly)
    with ThreadPoolExecutor(2) as pool:
        found = [future.result(timeout=30) for future in [pool.submit(build._compiled) for _ in range(2)]]
    assert found[0] == found[1]
    assert content_of(found[0]) == "half and half"
    assert len(compiled) == 1
    assert {path.name for path in found[0].parent.iterdir()} == {found[0].name, "sparse_kernels.sha256", ".lock"}


@pytest.mark.parametrize("damage", ["cut off", "empty", "another byte", "no hash", "an empty hash", "hash of nothing"])
def test_a_damaged_library_is_compiled_again(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To load one that is cut off would kill the process (SIGBUS); an empty one would mean CSR for ever."""
    compiled = []

    def compile_again(cxx: str, target: Path) -> None:
        compiled.append(target)
        target.write_text("the whole library")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "_compile", compile_again)
    library = build._compiled()
    assert build._compiled() == library
    assert len(compiled) == 1
    assert not caplog.records
    digest = library.with_suffix(".sha256")
    if damage == "cut off":
        library.write_text("the whole")
    elif damage == "empty":
        library.write_text("")
    elif damage == "another byte":
        library.write_text("the whole library".replace("w", "W"))
    elif damage == "no hash":
        digest.unlink()
    elif damage == "an empty hash":
        digest.write_text("")
    else:
        library.unlink()
    (library.parent / "tmpleftover").mkdir()  # of a process that was killed while it compiled
    assert content_of(build._compiled()) == "the whole library"
    assert len(compiled) == 2
    assert [record.levelname for record in caplog.records] == ([] if damage == "hash of nothing" else ["WARNING"])
    assert build._compiled() == library
    assert len(compiled) == 2
    assert {path.name for path in library.parent.iterdir()} == {library.name, digest.name, ".lock"}


def small_compiler(folder: Path) -> Path:
    """A compiler that makes a library of one function, and has no OpenMP."""
    compiler = folder / "without_openmp"
    source = "int has_threads() { return 0; }"
    compiler.write_text(
        f"""#!/bin/sh
        case " $* " in *" -fopenmp "*) exit 1;; " --version ") echo 1; exit; esac
        for target; do :; done
        echo '{source}' | {build.compiler()} -shared -fPIC -x c - -o "$target"
        """
    )
    compiler.chmod(0o755)
    return compiler


def test_a_cut_off_library_does_not_kill_the_process(tmp_path: Path) -> None:
    code = "from sparse_bench.kernels.build import load_library; print(load_library().has_threads())"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "CXX": str(small_compiler(tmp_path))}

    def loaded() -> str:
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert loaded() == "0\n"
    (library,) = tmp_path.glob("sparse_bench/kernels/*/sparse_kernels.so")
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 3])
    assert loaded() == "0\n"
    assert len(library.read_bytes()) == len(whole)


def test_the_compiler_needs_no_room_among_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not there"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = tmp_path / "compiler"
    compiler.write_text(
        """#!/bin/sh
        test "$1" = --version && exit
        for target; do :; done
        echo "$TMPDIR" > "$target"
        """
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    library = build._compiled()
    assert Path(content_of(library).strip()).parent == library.parent


def test_without_triton_the_gpu_falls_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "find_spec", lambda name: None)
    linear.kernel_or_csr.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="pip install"):
            assert linear.kernel_or_csr("cuda") == "csr"
    finally:
        linear.kernel_or_csr.cache_clear()


def test_fallback_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "kernel_available", lambda: cpu.Availability(False, "no compiler at all"))
    linear.kernel_or_csr.cache_clear()
    structure, x, values, bias, grad = problem(6, 5, 4, 0.5)
    try:
        with pytest.warns(RuntimeWarning, match="no compiler at all"):
            first = results(structure, x, values, bias, grad, "kernel")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = results(structure, x, values, bias, grad, "kernel")
        for actual in (first, second):
            assert_close(actual, expected(structure, x, values, bias, grad))
    finally:
        linear.kernel_or_csr.cache_clear()
