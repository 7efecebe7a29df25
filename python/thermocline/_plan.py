"""The plan of a statement."""

import html
import json


class Plan:
    """What the server is going to do for a statement, or did.

    `json` is the plan as docs/plan.md describes it, `text` the same as a tree; a notebook shows it by itself.
    """

    def __init__(self, document, text):
        self.json = document
        self.text = text

    def __getitem__(self, field):
        return self.json[field]

    @property
    def route(self):
        """Which sources answer: `lake`, `hot`, `federated`."""
        return self.json["route"]

    @property
    def is_degraded(self):
        return bool(self.json.get("degraded", {}).get("is_degraded"))

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        """The references as a table of what each source gives, warnings above it, and the tree to be opened."""
        rows = [
            (reference.get("alias") or reference.get("entity", ""), reference.get("dirty_rows"), *_merge(reference))
            for reference in self.json.get("references", [])
        ]
        titles = ("reference", "dirty rows", "merge", "why")
        head = "".join(f"<th style='text-align:left'>{title}</th>" for title in titles)
        body = "".join("<tr>" + "".join(f"<td>{_escape(value)}</td>" for value in row) + "</tr>" for row in rows)
        warnings = "".join(f"<p>⚠ {_escape(warning)}</p>" for warning in self._warnings())
        reason = self.json.get("route_reason", "")
        return (
            f"<div><b>{_escape(self.json.get('route', ''))}</b> {_escape(reason)}{warnings}"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<details><summary>plan</summary><pre>{_escape(self.text)}</pre></details></div>"
        )

    def _warnings(self):
        degraded = self.json.get("degraded", {})
        return [*self.json.get("warnings", []), *degraded.get("reasons", [])]


def plan(connection, sql, *, run=False):
    """The plan of a SELECT on an ADBC or DB-API connection; with `run` it is run and the plan says what was measured."""
    words = "ANALYZE, " if run else ""
    document = json.loads(_explain(connection, f"EXPLAIN ({words}FORMAT json) {sql}"))
    return Plan(document, _explain(connection, f"EXPLAIN {sql}"))


def _explain(connection, sql):
    cursor = connection.cursor()
    try:
        cursor.execute(sql)
        return dict(cursor.fetchall())["federated_plan"]
    finally:
        cursor.close()


def _merge(reference):
    merge = reference.get("merge") or {}
    return merge.get("strategy"), merge.get("proof") or merge.get("reason")


def _escape(value):
    return "" if value is None else html.escape(str(value))
