"""The dashboard for Grafana: its form is Grafana's, its queries ask for what a server tells.

Grafana itself is not here. The types that its authors publish read the dashboard and write it
again; a parser of Prometheus' language reads the queries, and what they select is compared with the
metrics and labels of a server that has run a job.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from neuro.client import Client
from neuro.client.blocking import run
from tests.server.jobs import finished, submit
from tests.server_process import ServerProcess, running_server

BOARD = json.loads((Path(__file__).parents[2] / "deploy" / "grafana.json").read_text())
PANELS = BOARD["panels"]
TARGETS = [
    pytest.param(target, id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
COLUMNS = 24  # of Grafana's grid


@dataclass
class Told:
    """What a server tells: the labels and the kind of each series."""

    labels: dict[str, set[str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


async def run_a_job(server: ServerProcess) -> None:
    async with Client.blocking(server.url, server.token) as client:
        await finished(client, await submit(client, "true"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    with running_server(tmp_path_factory.mktemp("data")) as server:
        run(run_a_job(server))
        with urllib.request.urlopen(server.url.removesuffix("/api/v1") + "/metrics") as answer:
            text = answer.read().decode()
    found = Told()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.labels.setdefault(sample.name, set()).update(sample.labels)
            found.kinds[sample.name] = family.type
    return found


def parsed(target: dict[str, Any]) -> promql.Expr:
    return promql.parse(target["expr"].replace("$__rate_interval", "1m"))


def labels_of(expression: Any, told: Told) -> set[str]:
    """The labels of what a query gives. Fails for one that asks for what is not told."""
    match expression:
        case promql.VectorSelector():
            assert expression.name in told.labels
            labels = told.labels[expression.name]
            assert {matcher.name for matcher in expression.matchers.matchers} <= labels
            return labels
        case promql.MatrixSelector():
            selector = expression.vector_selector
            assert told.kinds[selector.name] in ("counter", "histogram")
            return labels_of(selector, told)
        case promql.AggregateExpr():
            inner = labels_of(expression.expr, told)
            if expression.modifier is None:
                return inner if str(expression.op) == "topk" else set()
            assert expression.modifier.type == promql.AggModifierType.By
            assert set(expression.modifier.labels) <= inner
            return set(expression.modifier.labels)
        case promql.Call():
            inner = set().union(*(labels_of(each, told) for each in expression.args))
            if expression.func.name == "histogram_quantile":
                assert "le" in inner
                return inner - {"le"}
            return inner
        case promql.BinaryExpr():
            return labels_of(expression.lhs, told) | labels_of(expression.rhs, told)
        case promql.ParenExpr():
            return labels_of(expression.expr, told)
        case promql.NumberLiteral():
            return set()
    raise AssertionError(f"a query with {type(expression).__name__}, which nothing checks")


@pytest.mark.parametrize("target", TARGETS)
def test_a_query_asks_for_what_a_running_server_tells(target: dict[str, Any], told: Told) -> None:
    labels = labels_of(parsed(target), told)

    assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"])) <= labels


@pytest.mark.parametrize(
    "query",
    [
        "neuro_jobs_active{",
        "rate(neuro_jobs_finished_total)",
        "neuro_jobs_of_yesterday",
        "rate(neuro_jobs_active[1m])",
        "sum by (owner) (neuro_jobs_active)",
        'neuro_jobs_active{owner="bob"}',
        "histogram_quantile(0.5, sum(rate(neuro_job_start_seconds_bucket[1m])))",
    ],
)
def test_a_query_for_something_else_would_be_found(query: str, told: Told) -> None:
    with pytest.raises((ValueError, AssertionError)):
        labels_of(parsed({"expr": query}), told)


def missed(given: Any, written: Any, place: str = "") -> Iterator[str]:
    """Where Grafana's own types have not kept what stands in the file."""
    match given, written:
        case dict(), dict():
            for key, value in given.items():
                if key in written:
                    yield from missed(value, written[key], f"{place}/{key}")
                else:
                    yield f"{place}/{key}"
        case list(), list():
            assert len(given) == len(written)
            for number, (one, other) in enumerate(zip(given, written, strict=True)):
                yield from missed(one, other, f"{place}/{number}")
        case _ if given != written:
            yield place


def as_grafana_reads(board: dict[str, Any]) -> Any:
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(board)))


def test_grafana_knows_every_key() -> None:
    assert list(missed(BOARD, as_grafana_reads(BOARD))) == []


@pytest.mark.parametrize(
    "place",
    [
        "/refersh",
        "/panels/0/gridPos/hight",
        "/panels/0/fieldConfig/defaults/units",
        "/panels/0/options/legend/place",
        "/panels/0/targets/0/legend",
        "/templating/list/0/datasource_type",
    ],
)
def test_a_key_that_grafana_does_not_know_would_be_found(place: str) -> None:
    board = json.loads(json.dumps(BOARD))
    *way, name = place[1:].split("/")
    there = reduce(lambda it, key: it[int(key) if isinstance(it, list) else key], way, board)
    there[name] = "x"

    assert list(missed(board, as_grafana_reads(board))) == [place]


def test_every_panel_can_be_drawn() -> None:
    variables = {each["name"] for each in BOARD["templating"]["list"]}
    counts = Counter(panel["id"] for panel in PANELS)
    assert set(counts.values()) == {1}
    for panel in PANELS:
        assert panel["type"] == "timeseries"
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"] in ("short", "s", "bytes", "reqps")
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
    assert "datasource" in variables
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD)))
    assert used <= variables | {"__rate_interval"}


def test_no_panel_lies_over_another() -> None:
    for place in places():
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(places(), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart


def places() -> Iterator[dict[str, int]]:
    """Where the panels lie on the grid."""
    for panel in PANELS:
        yield panel["gridPos"]
