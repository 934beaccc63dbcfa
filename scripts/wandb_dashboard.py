"""The project's reports on Weights & Biases: one for each paper, with density-versus-metric panels.

python scripts/wandb_dashboard.py                            the specifications, as files: no account, no network
python scripts/wandb_dashboard.py --publish --entity TEAM    the reports, on the server that `wandb login` knows

A report shows the runs that `logger=wandb` sent to the project (offline records: after `wandb sync`). Which runs and
metrics belong to a paper is read from the descriptions of the papers' pages; how runs name them, from the tracker.
Needs W&B's own library for this: pip install 'sparse_bench[wandb-dashboard]'.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interleaved import run

from sparse_bench.benchmark.tasks import TASKS
from sparse_bench.config.catalog import experiments
from sparse_bench.errors import ConfigError, SparseBenchError
from sparse_bench.evidence.names import title
from sparse_bench.papers.page import Epochs, Paper, Section, read_papers
from sparse_bench.tracking.base import DENSITY, WEIGHTS
from sparse_bench.tracking.wandb import axis_of, summary_name

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

#: Panels stand in rows of three; the grid has 24 columns.
_WIDTH, _HEIGHT, _IN_A_ROW = 8, 6, 3


def library() -> Any:
    """W&B's library for reports.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise ConfigError(
            "The dashboard needs the package 'wandb-workspaces'. Install it with: "
            "pip install 'sparse_bench[wandb-dashboard]'"
        ) from error
    return wr


def dashboard(paper: Paper, project: str, entity: str = "") -> "wr.Report":
    """The report of a paper: for each part of its page a grid of panels over that part's runs."""
    wr = library()
    blocks: list[Any] = [wr.TableOfContents(), wr.P(f"{paper.document} {paper.summary}")]
    for section in paper.sections:
        panels = list(_laid_out(_panels(paper, section)))
        if panels:
            blocks += [wr.H2(section.heading), wr.PanelGrid(runsets=[_runs(section)], panels=panels)]
    return wr.Report(project=project, entity=entity, title=paper.title, blocks=blocks)


def specification(report: "wr.Report") -> dict[str, Any]:
    """What W&B's server would be sent."""
    model = report._to_model()  # the library has no public way to see a report that is not saved
    content: dict[str, Any] = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"displayName": model.display_name, "projectName": report.project, "spec": content}


def _runs(section: Section) -> "wr.Runset":
    """The runs of a part: its experiments are groups in W&B. Each run is a point, so seeds show their spread."""
    from wandb_workspaces import expr

    return library().Runset(name=section.heading, filters=expr.And(expr.Metric("Group").isin(section.experiments)))


def _panels(paper: Paper, section: Section) -> Iterator["wr.Panel"]:
    """Each metric against density and against weights; then the learning curves of those that have one."""
    wr = library()
    for metric in _metrics(section):
        final = wr.SummaryMetric(summary_name(metric))
        for axis, name in ((DENSITY, "density"), (WEIGHTS, "weights in sparse layers")):
            yield wr.ScatterPlot(title=f"{title(metric)} against {name}", x=wr.SummaryMetric(axis), y=final, log_x=True)
    for metric in _followed(paper, section):
        yield wr.LinePlot(title=f"{title(metric)} during training", x=axis_of(metric), y=[metric])


def _metrics(section: Section) -> list[str]:
    """The metrics of a part. The benchmark's part names none: its tasks have them."""
    tasks = [task for task in TASKS if task.experiment in section.experiments]
    return list(section.metrics) or list(dict.fromkeys(task.metric for task in tasks))


def _followed(paper: Paper, section: Section) -> list[str]:
    """Metrics of the part that runs log during training, its figures' first."""
    drawn = [figure.of for figure in section.figures if isinstance(figure, Epochs)]
    kept = [metric for metric in _metrics(section) if any(fnmatchcase(metric, pattern) for pattern in paper.curves)]
    return list(dict.fromkeys([*drawn, *kept]))


def _laid_out(panels: Iterator["wr.Panel"]) -> Iterator["wr.Panel"]:
    for place, panel in enumerate(panels):
        row, column = divmod(place, _IN_A_ROW)
        panel.layout = library().Layout(x=column * _WIDTH, y=row * _HEIGHT, w=_WIDTH, h=_HEIGHT)
        yield panel


def _publish(papers: Sequence[Paper], project: str, entity: str) -> list[str]:
    """Save the reports on the server; returns their addresses.

    Raises:
        ConfigError: W&B cannot be used, with W&B's own reason.
    """
    import wandb

    try:
        # Without a key the library would ask for one at a terminal.
        if not wandb.login(prompt=False, verify=True):
            raise ConfigError("There is no W&B account: log in with `wandb login`, or set WANDB_API_KEY.")
        owner = entity or wandb.Api().default_entity
        return [str(dashboard(paper, project, owner).save().url) for paper in papers]
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"W&B did not take the reports ({type(error).__name__}: {error}).") from error


def main(
    *, publish: bool = False, project: str = "sparse_bench", entity: str = "", output: Path = Path("runs/wandb_reports")
) -> int:
    """Write the specifications, or publish the reports; 1 if that cannot be done."""
    try:
        papers = list(read_papers(experiments()).values())
        if publish:
            for address in _publish(papers, project, entity):
                print(f"Published: {address}")
            return 0
        found = {paper.name: specification(dashboard(paper, project)) for paper in papers}
    except SparseBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    output.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        (output / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"Specifications of {len(found)} reports, not published: {output}. With an account: add --publish.")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
