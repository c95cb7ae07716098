"""The one module that imports wandb_workspaces: makes of a board one Report and one saved view, and sends them.

Both are found again by their title, so that whoever sends, from wherever, updates the same two. What is sent is the
package's own model, as its own `save` would send it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.publish.board import TITLE, Bars, Board, Lines, Media, Panel, Scatter, Section

UNKNOWN_ENTITY = "your-entity"
"""What stands in links for the entity of a key that there is not yet."""

WIDTH, HEIGHT, ACROSS = 8, 6, 3
"""Of a panel in W&B's units, of which a row has 24."""

KINDS = {"report": "runs", "view": "project-view"}
"""What is sent, and what W&B calls its type."""

FIND = """
query ProjectViews($entity: String!, $project: String!, $viewType: String!, $cursor: String) {
    project(name: $project, entityName: $entity) {
        allViews(viewType: $viewType, first: 100, after: $cursor) {
            edges { node { id name displayName } }
            pageInfo { endCursor hasNextPage }
        }
    }
}
"""


@dataclass(frozen=True)
class Place:
    """Where a board goes: a project of an entity, and the address under which browsers see it."""

    entity: str
    project: str
    app: str

    @property
    def url(self) -> str:
        """The project's address."""
        return f"{self.app.rstrip('/')}/{self.entity}/{self.project}"


def place_of(api: Any, entity: str | None, project: str) -> Place:
    """Return where the key of an API goes, to its own entity where none is given."""
    from wandb_workspaces._graphql import get_app_url

    return Place(entity or api.default_entity, project, get_app_url(api))


def requests_of(board: Board, place: Place) -> dict[str, dict[str, Any]]:
    """Return by kind the variables of the call that makes the Report, and the view: validated, and without an id."""
    report, view = report_of(board, place)._to_model(), workspace_of(board, place)._to_model()
    spec = {"report": report.spec, "view": view.spec}
    common = {"entityName": place.entity, "projectName": place.project, "displayName": TITLE, "description": ABOUT}
    return {
        kind: common | {"type": name, "spec": spec[kind].model_dump_json(by_alias=True, exclude_none=True)}
        for kind, name in KINDS.items()
    }


ABOUT = "Made from the result tables by `python stages/publish.py --report`, which makes it again: edits here are lost."


def send(api: Any, requests: Mapping[str, Mapping[str, Any]], place: Place) -> dict[str, str]:
    """Make or update the Report and the view; return their addresses. Raises whatever wandb raises.

    Args:
        api: wandb's, logged in.
        requests: As `requests_of` returns them.
        place: Where they go.
    """
    from wandb_workspaces._graphql import execute_graphql
    from wandb_workspaces.reports.v2 import gql
    from wandb_workspaces.workspaces.internal import _generate_view_name

    addresses = {}
    for kind, variables in requests.items():
        known = _find(api, place, KINDS[kind])
        name = {} if kind == "report" else {"name": _generate_view_name()}
        answer = execute_graphql(api, gql.upsert_view, {**variables, **name, **known})
        made = answer["upsertView"]["view"]
        if kind == "report":
            addresses[kind] = f"{place.url}/reports/{TITLE.replace(' ', '-')}--{made['id']}"
        else:
            addresses[kind] = f"{place.url}?nw={made['name'].removeprefix('nw-').removesuffix('-v')}"
    return addresses


def _find(api: Any, place: Place, view_type: str) -> dict[str, str]:
    """Return id and name of the one with the title, nothing where there is none; makes the project if need be."""
    from wandb_workspaces._graphql import execute_graphql

    cursor: str | None = None
    while True:
        asked = {"entity": place.entity, "project": place.project, "viewType": view_type, "cursor": cursor}
        project = execute_graphql(api, FIND, asked)["project"]
        if project is None:
            api.create_project(place.project, place.entity)
            return {}
        views = project["allViews"]
        for edge in views["edges"]:
            if edge["node"]["displayName"] == TITLE:
                return {"id": edge["node"]["id"], "name": edge["node"]["name"]}
        if not views["pageInfo"]["hasNextPage"]:
            return {}
        cursor = views["pageInfo"]["endCursor"]


def report_of(board: Board, place: Place) -> Any:
    """Return the Report: the ledger, and per study its panels, figures and artifacts."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.P(text=ABOUT), wr.TableOfContents()]
    if board.ledger:
        blocks += [wr.H2(text="Ledger"), wr.MarkdownBlock(text=board.ledger), _links([("report", "report")], place)]
    for section in board.sections:
        blocks += [wr.H2(text=section.study.replace("_", " ")), wr.P(text=section.question)]
        blocks.append(_grid(section.panels, section, "trial"))
        if section.figures:
            blocks.append(_grid((section.figures,), section, "study"))
        if section.artifacts:
            blocks.append(_links(section.artifacts, place))
    about = {"title": TITLE, "description": ABOUT, "width": "fluid"}
    return wr.Report(project=place.project, entity=place.entity, blocks=blocks, **about)


def workspace_of(board: Board, place: Place) -> Any:
    """Return the saved view: a section of panels per study; one run set is all that a view has."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=section.study, panels=list(_panels(section.panels, f"{section.study}: ")), is_open=number == 0)
        for number, section in enumerate(board.sections)
    ]
    shown = ws.RunsetSettings(
        groupby=[], filters=expr.And(expr.Metric("JobType") == "trial"), order=[expr.Ordering(expr.Metric("Group"))]
    )
    settings = ws.WorkspaceSettings(x_axis="step")
    where = {"entity": place.entity, "project": place.project, "name": TITLE}
    return ws.Workspace(**where, sections=sections, runset_settings=shown, settings=settings)


def _grid(panels: tuple[Panel, ...], section: Section, job_type: str) -> Any:
    """Return panels over the runs of a study that do one job."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr

    runs = expr.And(expr.Metric("Group") == section.group, expr.Metric("JobType") == job_type)
    name = section.study if job_type == "trial" else f"{section.study}, whole"
    return wr.PanelGrid(runsets=[wr.Runset(name=name, filters=runs)], panels=list(_panels(panels)))


def _panels(panels: tuple[Panel, ...], lead: str = "") -> Iterator[Any]:
    """Yield panels, three in a row; titles begin with `lead`."""
    import wandb_workspaces.reports.v2 as wr

    for number, panel in enumerate(panels):
        down, across = divmod(number, ACROSS)
        common: dict[str, Any] = {"layout": wr.Layout(x=WIDTH * across, y=HEIGHT * down, w=WIDTH, h=HEIGHT)}
        title = {"title": f"{lead}{panel.title}"}
        if isinstance(panel, Lines):
            axes = {"x": "step", "y": list(panel.metrics), "title_x": "training step", "log_y": panel.log}
            yield wr.LinePlot(**title, **axes, **common)
        elif isinstance(panel, Scatter):
            scales = {"log_x": panel.log_x, "log_y": panel.log_y}
            x, y = wr.Config(panel.field), wr.SummaryMetric(panel.summary)
            yield wr.ScatterPlot(**title, x=x, y=y, **scales, **common)
        elif isinstance(panel, Bars):
            yield wr.BarPlot(**title, metrics=[panel.summary], **common)
        elif isinstance(panel, Media):
            yield wr.MediaBrowser(**title, media_keys=list(panel.keys), **common)
        else:
            table = {"historyTable": {"tableKey": f"{panel.key}_table"}}
            fields = {"x": panel.x, "y": panel.y, "stroke": panel.stroke}
            yield wr.CustomChart(
                query=table, chart_name="wandb/line/v0", chart_fields=fields, chart_strings=title, **common
            )


def _links(artifacts: Any, place: Place) -> Any:
    """Return a paragraph of links to the newest version of each artifact."""
    import wandb_workspaces.reports.v2 as wr

    parts: list[Any] = ["Artifacts: "]
    for kind, name in artifacts:
        address = f"{place.url}/artifacts/{kind}/{name}/latest"
        parts += [wr.Link(text=name, url=address), " "]
    return wr.P(text=parts)
