"""Start a Slurm cluster of this machine alone, run a command with it, and end what was started.

    python scripts/local_slurm.py sinfo
    python scripts/local_slurm.py python -m sparse_bench seed=0,1 hydra/launcher=slurm hydra.launcher.workers=2 -m

It needs root and Debian's packages slurm-wlm and munge, and touches nothing outside a temporary folder.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

#: Programs of slurm-wlm and munge; Debian keeps the daemons outside a user's PATH.
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=6
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=20
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why no cluster can be started here; empty if it can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        return f"needs Debian's packages slurm-wlm and munge ({', '.join(missing)} not found)"
    return "" if os.geteuid() == 0 else "needs root, to start Slurm's daemons"


@contextmanager
def cluster(cpus: int = 2) -> Iterator[dict[str, str]]:
    """A running cluster. Yields the environment in which Slurm's commands use it.

    Args:
        cpus: cores that Slurm believes to have.

    Raises:
        RuntimeError: a daemon did not start; the message holds its log.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as stack:
        folder, host = Path(name), socket.gethostname().partition(".")[0]
        folder.chmod(0o755)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        ports = dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
        conf = folder / "slurm.conf"
        conf.write_text(_CONF.format(folder=folder, host=host, cpus=cpus, **ports))
        environment = os.environ | {"SLURM_CONF": str(conf), "PATH": _PATH}
        munge = [f"--{part}-file={folder}/munge.{part}" for part in ("key", "log", "pid", "seed")]
        daemons = {
            "munged": ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
            "slurmctld": ["slurmctld", "-D", "-c"],
            "slurmd": ["slurmd", "-D", "-N", host],
        }
        logs = {}
        for daemon, command in daemons.items():
            logs[daemon] = folder / f"{daemon}.out"
            with logs[daemon].open("wb") as log:
                # It ends with this process, also if that is killed. (setpriv is part of every Debian.)
                command = ["setpriv", "--pdeathsig", "TERM", *command]
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            stack.callback(_end, process)
            if daemon == "munged":
                _until(lambda: (folder / "munge.socket").exists(), process, logs[daemon])
        stack.callback(subprocess.run, ["scancel", "--user=root"], env=environment, check=False)
        _until(
            lambda: "idle" in _output(["sinfo", "--noheader", "--format=%t"], environment), process, logs["slurmctld"]
        )
        yield environment
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        deadline = time.monotonic() + 30
        while _output(["squeue", "--noheader"], environment) and time.monotonic() < deadline:
            time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()


def _until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} did not start:\n{log.read_text()}")
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Run the command of the command line in a cluster; end with its exit status."""
    if reason := lacking():
        sys.exit(f"No cluster can be started here: it {reason}.")
    with cluster(len(os.sched_getaffinity(0))) as environment:
        code = subprocess.run(sys.argv[1:] or ["sinfo"], env=environment, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
