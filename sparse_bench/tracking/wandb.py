"""Metrics on Weights & Biases: live, or recorded in the run's folder for ``wandb sync``.

Nothing that W&B or its server does may fail a run or hold it up for long: a server that cannot be used is found out
before anything is sent, and the record is then kept offline; every wait has a limit.
"""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sparse_bench.limits import Name, Positive, checked
from sparse_bench.tracking.base import ASKED, DENSITY, WEIGHTS, RunInfo, Status, Tracker

if TYPE_CHECKING:
    import wandb

logger = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
#: Names of splits that are evaluated when a run ends.
_EVALUATED = ("valid/", "test/")


#: What W&B takes: the most characters of each field, and characters that it refuses. The package checks those of the
#: id, the project and tags, the server all.
_LIMITS = {"id": 128, "group": 128, "job type": 64, "name": 128, "project": 128, "tag": 64}
_REFUSED = {"id": r"[/\\#?%:;,']", "project": r"[/\\#?%:]"}


def fitting(field: str, value: str) -> str:
    """``value`` as W&B takes it in ``field``, said where that is another one.

    Where something is lost, a hash of the whole tells it from others that would become the same.
    """
    fit = re.sub(_REFUSED.get(field, r"[\x00-\x1f]"), "-", value).strip()
    slashes = field == "id" and fit == value.replace("/", "-")  # as in every experiment's name
    if len(fit) > _LIMITS[field] or not (fit == value or slashes):
        digest = hashlib.sha256(value.encode()).hexdigest()[:8]
        fit = f"{fit[: _LIMITS[field] - len(digest) - 1]}-{digest}"
        logger.warning("W&B does not take the %s '%s', which is recorded as '%s'", field, value, fit)
    return fit


def axis_of(metric: str) -> str:
    """The column of the history that a metric is drawn over."""
    return "step" if metric.startswith("train/") else "epoch"


def summary_name(metric: str) -> str:
    """Where the W&B summary holds the final value of a metric; a metric of training has none but its last one."""
    return f"final/{metric}" if metric.startswith(_EVALUATED) else f"{metric}.last"


class WandbTracker(Tracker):
    """One W&B run with the id of the project's run, so that a resumed run goes on in the same W&B run.

    Metrics of training are drawn over ``step``, all others over ``epoch``, and each has its min, max and last value
    in the W&B summary. The final metrics stand in the summary as ``final/…`` beside ``sparsity/density``, which is also
    their x axis: a line plot or scatter plot of ``final/test/…`` over many runs shows metric against density.

    The server and the account are W&B's own business: ``WANDB_BASE_URL``, ``WANDB_API_KEY``, ``wandb login``.

    Args:
        mode: ``online``, ``offline`` (record in the run's folder; no network at all) or ``disabled``.
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        tags: tags in addition to the model, the dataset and the scheme.
        timeout: seconds that each of the steps towards a running online run may take (find the server, log in, open).
        finish_timeout: seconds that the upload may still take at the end; what is left stays on disk.
        settings: any further settings of :class:`wandb.Settings`, by name.

    Raises:
        ConfigError: ``mode`` is not one of the three.
    """

    @checked
    def __init__(
        self,
        mode: Mode = "offline",
        project: Name = "sparse_bench",
        entity: Name | None = None,
        tags: list[str] | None = None,
        timeout: Positive = 15.0,
        finish_timeout: Positive = 120.0,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.mode: Mode = mode
        self.project = project
        self.entity = entity
        self.tags = tags or []
        self.timeout = timeout
        self.finish_timeout = finish_timeout
        self.settings = dict(settings or {})
        self._run: wandb.Run | None = None
        self._defined: set[str] = set()

    def start(self, info: RunInfo) -> None:
        """Open the W&B run; offline where online was asked for but does not work."""
        if self.mode == "disabled":
            return
        self._defined.clear()
        info.folder.mkdir(parents=True, exist_ok=True)
        if self.mode == "offline":
            # W&B's own error reports would be sent even then.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        run = self._online(info) if self.mode == "online" else self._open(info, "offline")
        self._run = run
        for axis in ("step", "epoch"):
            run.define_metric(axis, hidden=True)
        run.define_metric("final/*", step_metric=DENSITY)
        logger.info("W&B run %s", run.url if not run.offline else f"recorded in {run.settings.sync_dir}")

    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """One row of the history. ``step`` and ``epoch`` are columns of it: W&B's own step only counts the rows,
        since it must never go back, as the step of a resumed run may."""
        if self._run is None:
            return
        for name in metrics.keys() - self._defined:
            self._run.define_metric(name, step_metric=axis_of(name), summary="min,max,last")
            self._defined.add(name)
        self._run.log({**metrics, "step": step, "epoch": epoch})

    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """The summary, and one last row with the pair (density, final metrics); then close, as failed if it is."""
        run, self._run = self._run, None
        if run is None:
            return
        try:
            final = {summary_name(k): value for k, value in summary.items() if k.startswith(_EVALUATED)}
            sparsity = {k: value for k, value in summary.items() if k in (ASKED, DENSITY, WEIGHTS)}
            if final or sparsity:
                run.log({**final, **sparsity})
            rest = {k: value for k, value in summary.items() if summary_name(k) not in final and k not in sparsity}
            run.summary.update({"status": status, **rest})
        finally:
            run.finish(exit_code=0 if status == "finished" else 1)
        if run.offline:
            logger.info("To upload the W&B record: wandb sync %s", run.settings.sync_dir)

    def _open(self, info: RunInfo, mode: Literal["online", "offline"]) -> "wandb.Run":
        import wandb

        labels = dict(info.labels)
        tags = [str(tag) for tag in (labels["model"], labels["dataset"], labels["scheme"], *self.tags) if tag]
        return wandb.init(
            project=fitting("project", self.project),
            entity=self.entity,
            id=fitting("id", f"{info.experiment}-{info.id}"),  # one experiment's run is not another's
            # Offline there is nothing to resume: a record is appended to its run when it is uploaded.
            resume="allow" if mode == "online" else None,
            group=fitting("group", info.group),
            job_type=fitting("job type", info.job_type),
            name=fitting("name", info.name),
            tags=list(dict.fromkeys(fitting("tag", tag) for tag in tags)),
            config={**info.config, "labels": labels},
            mode=mode,
            dir=str(info.folder),
            # By default a run that is still open would be returned instead of a new one.
            reinit="create_new",
            settings=wandb.Settings(
                **{
                    "silent": True,
                    "init_timeout": self.timeout,
                    "finish_timeout": self.finish_timeout,
                    **self.settings,
                }
            ),
        )

    def _online(self, info: RunInfo) -> "wandb.Run":
        import wandb

        reason = self._obstacle()
        if reason is None:
            try:
                return self._open(info, "online")
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                # The service would still hold the id of the run that failed to open.
                wandb.teardown()
        logger.warning("W&B cannot be used online, so this run is recorded offline (%s)", reason)
        return self._open(info, "offline")

    def _obstacle(self) -> str | None:
        """Why W&B cannot be used online, if that can be told without opening a run."""
        import requests
        import wandb

        session = wandb.setup().settings
        if session.mode != "online":
            return f"W&B's own settings or WANDB_MODE say {session.mode}"
        server = session.base_url
        try:
            requests.get(server, timeout=self.timeout, stream=True).close()
        except requests.RequestException as error:
            return f"no answer from {server}: {error}"
        # Without a key wandb.init would ask for one at a terminal, and wait for the answer for ever.
        try:
            if not wandb.login(prompt=False, verify=True):
                return "no API key; log in with `wandb login` or set WANDB_API_KEY"
        except Exception as error:
            return f"login at {server} failed: {error}"
        return None
