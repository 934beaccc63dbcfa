"""Compiling the kernel, for other vector widths too, and what happens where that is not possible."""

import ctypes
import subprocess
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparse_bench.sparsity.kernels import build, cpu, linear, lstm
from tests.sparsity.kernels.problems import (
    assert_close,
    assert_same_lstm,
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
        layer = lstm_problem(steps=3, batch=21, inputs=7, hidden=37, density=0.2)
        assert_same_lstm(layer, "kernel")
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
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
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
    compiler = tmp_path / "without_openmp"
    source = "int has_threads() { return 0; }"
    compiler.write_text(
        f"""#!/bin/sh
        case " $* " in *" -fopenmp "*) exit 1;; " --version ") echo 1; exit; esac
        for target; do :; done
        echo '{source}' | {build.compiler()} -shared -fPIC -x c - -o "$target"
        """
    )
    compiler.chmod(0o755)
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


def test_two_processes_that_compile_at_once_both_find_a_whole_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    together = threading.Barrier(2, timeout=30)

    def compile_slowly(cxx: str, target: Path) -> None:
        target.write_text("half")
        together.wait()  # the other one has begun too
        target.write_text("half and half")
        together.wait()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "_compile", compile_slowly)
    with ThreadPoolExecutor(2) as pool:
        found = [future.result(timeout=30) for future in [pool.submit(build._compiled) for _ in range(2)]]
    assert found[0] == found[1]
    assert found[0].read_text() == "half and half"
    assert list(found[0].parent.iterdir()) == [found[0]]


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
