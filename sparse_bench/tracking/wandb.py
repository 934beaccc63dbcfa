"""Metrics on Weights & Biases: live, or recorded in the run's folder for ``wandb sync``.

W&B and its server must neither fail a run nor delay it for long. The server is checked before anything is sent; if it
cannot be used, the record is kept offline. Every wait has a time limit.
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
#: Prefixes of the metrics that are measured when a run ends.
_EVALUATED = ("valid/", "test/")


#: Limits of W&B: the maximal number of characters of each field, and the characters that it refuses. The W&B package
#: checks the id, the project and tags; the server checks all fields.
_LIMITS = {"id": 128, "group": 128, "job type": 64, "name": 128, "project": 128, "tag": 64}
_REFUSED = {"id": r"[/\\#?%:;,']", "project": r"[/\\#?%:]"}


def fitting(field: str, value: str) -> str:
    """Change ``value`` so that W&B accepts it in ``field``, and log the change.

    If anything is lost, a hash of the original value is appended, so that different values stay different.
    """
    fit = re.sub(_REFUSED.get(field, r"[\x00-\x1f]"), "-", value).strip()
    slashes = field == "id" and fit == value.replace("/", "-")  # as in every experiment's name
    if len(fit) > _LIMITS[field] or not (fit == value or slashes):
        digest = hashlib.sha256(value.encode()).hexdigest()[:8]
        fit = f"{fit[: _LIMITS[field] - len(digest) - 1]}-{digest}"
        logger.warning("W&B does not accept the %s '%s'; it is recorded as '%s'", field, value, fit)
    return fit


def axis_of(metric: str) -> str:
    """The column of the history that is a metric's x axis."""
    return "step" if metric.startswith("train/") else "epoch"


def summary_name(metric: str) -> str:
    """Name of a metric's final value in the W&B summary; for a training metric, its last value."""
    return f"final/{metric}" if metric.startswith(_EVALUATED) else f"{metric}.last"


class WandbTracker(Tracker):
    """Records a run as a W&B run with the same id, so that a resumed run continues the same W&B run.

    Training metrics are drawn over ``step``, all others over ``epoch``. The W&B summary holds the minimum, maximum and
    last value of each. It also holds the final metrics as ``final/…``, and ``sparsity/density``, which is their x axis:
    a line plot or scatter plot of ``final/test/…`` over many runs shows the metric against density.

    W&B itself chooses the server and the account: ``WANDB_BASE_URL``, ``WANDB_API_KEY``, ``wandb login``.

    Args:
        mode: ``online``, ``offline`` (record in the run's folder, without any network) or ``disabled``.
        project: W&B project.
        entity: W&B user or team; None is the account's default.
        tags: tags in addition to the model, the dataset and the scheme.
        timeout: time limit in seconds for each step of going online: find the server, log in, open the run.
        finish_timeout: time limit in seconds for the upload at the end; data not yet uploaded stay on disk.
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
        """Open the W&B run. If the mode is online but W&B cannot be reached, open it offline."""
        if self.mode == "disabled":
            return
        self._defined.clear()
        info.folder.mkdir(parents=True, exist_ok=True)
        if self.mode == "offline":
            # Otherwise W&B would send its own error reports even in offline mode.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        run = self._online(info) if self.mode == "online" else self._open(info, "offline")
        self._run = run
        for axis in ("step", "epoch"):
            run.define_metric(axis, hidden=True)
        run.define_metric("final/*", step_metric=DENSITY)
        logger.info("W&B run %s", run.url if not run.offline else f"recorded in {run.settings.sync_dir}")

    def log(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        """Write one row of the history, with ``step`` and ``epoch`` as columns.

        W&B's own step only counts the rows: it must never decrease, but the step of a resumed run may.
        """
        if self._run is None:
            return
        for name in metrics.keys() - self._defined:
            self._run.define_metric(name, step_metric=axis_of(name), summary="min,max,last")
            self._defined.add(name)
        self._run.log({**metrics, "step": step, "epoch": epoch})

    def finish(self, status: Status, summary: dict[str, Any]) -> None:
        """Write the summary and a last row with density and final metrics, then close the run with its status."""
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
            id=fitting("id", f"{info.experiment}-{info.id}"),  # equal runs of two experiments stay apart
            # An offline record cannot be resumed; it is appended to its run when it is uploaded.
            resume="allow" if mode == "online" else None,
            group=fitting("group", info.experiment),
            job_type=fitting("job type", info.job_type),
            name=fitting("name", info.name),
            tags=list(dict.fromkeys(fitting("tag", tag) for tag in tags)),
            config={**info.config, "labels": labels},
            mode=mode,
            dir=str(info.folder),
            # By default, W&B would return a run that is still open instead of a new one.
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
                # Otherwise W&B's service would keep the id of the run that failed to open.
                wandb.teardown()
        logger.warning("W&B cannot be used online, so this run is recorded offline (%s)", reason)
        return self._open(info, "offline")

    def _obstacle(self) -> str | None:
        """Why W&B cannot be used online, as far as that can be checked without opening a run; else None."""
        import requests
        import wandb

        session = wandb.setup().settings
        if session.mode != "online":
            return f"WANDB_MODE or W&B's own settings choose the mode {session.mode}"
        server = session.base_url
        try:
            requests.get(server, timeout=self.timeout, stream=True).close()
        except requests.RequestException as error:
            return f"no answer from {server}: {error}"
        # Without a key, wandb.init would ask for one at the terminal and wait forever.
        try:
            if not wandb.login(prompt=False, verify=True):
                return "no API key; log in with `wandb login` or set WANDB_API_KEY"
        except Exception as error:
            return f"login at {server} failed: {error}"
        return None
