from __future__ import annotations

import subprocess

from neuro.domain.bakes import TaskStatus
from neuro.flow.batch.draw import dot

GRAPHS = {
    "": {"a": [], "fit": ["a"], "b": ["fit"]},
    "fit": {"fit.in": [], "fit.sub": ["fit.in"]},
    "fit.sub": {"fit.sub.x": [], 'fit.sub.lr-0.1"\\': []},
}
STATUSES = {
    "a": TaskStatus.SUCCEEDED,
    "fit": TaskStatus.RUNNING,
    "fit.in": TaskStatus.CACHED,
    "fit.sub": TaskStatus.PENDING,
    "fit.sub.x": TaskStatus.FAILED,
}
TIMES = {"a": "1.5s", "fit.sub.x": "2m"}
DRAWN = r"""strict digraph "my batch" {
  compound=true
  fontname="Helvetica"
  node [style=filled fillcolor=white shape=box fontname="Helvetica"]
  "a" [label="a\nsucceeded 1.5s" fillcolor="#b7e4b0"]
  subgraph "cluster_fit" {
    label="fit\nrunning"
    style=rounded
    color="#8ec5e8" penwidth=2
    "fit.in" [label="in\ncached" fillcolor="#d9c3ea" style="filled,dashed"]
    subgraph "cluster_fit.sub" {
      label="sub\npending"
      style=rounded
      color="#d6ebf5" penwidth=2
      "fit.sub.x" [label="x\nfailed 2m" fillcolor="#f08a7a"]
      "fit.sub.lr-0.1\"\\" [label="lr-0.1\"\\"]
    }
  }
  "b" [label="b"]
  "a" -> "fit.in" [lhead="cluster_fit"]
  "fit.in" -> "b" [ltail="cluster_fit" minlen=2]
  "fit.in" -> "fit.sub.x" [lhead="cluster_fit.sub"]
}
"""


def test_the_text_for_graphviz() -> None:
    assert dot("my batch", GRAPHS, STATUSES, TIMES) == DRAWN


def test_graphviz_reads_it_as_it_is_meant() -> None:
    done = subprocess.run(
        ["dot", "-Tplain"], input=DRAWN, capture_output=True, text=True, check=True
    )

    assert done.stderr == ""
    nodes = [line.split() for line in done.stdout.splitlines() if line.startswith("node ")]
    high = {node[1]: float(node[3]) for node in nodes}
    # Calls stand between what comes before and what comes after them.
    assert high["a"] > high['"fit.in"'] > high['"fit.sub.x"'] > high["b"]
    assert len(nodes) == 5


def test_a_call_of_nothing_is_a_node() -> None:
    text = dot("b", {"": {"call": [], "next": ["call"]}, "call": {}}, {}, {})

    assert '"call" [label="call"]' in text
    assert '"call" -> "next"\n' in text
