"""The interface description, as JSON for programs and as a page for people; the page needs nothing from elsewhere."""

from __future__ import annotations

import html
import json
from functools import cache
from typing import Any

import azure.functions as func

from shared.entrypoints.problems import json_response

_STYLE = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}body{max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.75rem;border:1px solid #8886;border-radius:6px}
details{border:1px solid #8886;border-radius:6px;margin:.5rem 0;padding:.5rem .75rem}summary{cursor:pointer}
.method{display:inline-block;min-width:3.5rem;font-weight:700}
td{text-align:left;vertical-align:top;padding:.15rem .75rem .15rem 0}
"""


def description(version: str) -> func.HttpResponse:
    """`GET /api/openapi.json`."""
    from shared.entrypoints.openapi import document  # noqa: PLC0415 - its shapes are not needed to decide

    return json_response(document(version))


def page(version: str) -> func.HttpResponse:
    """`GET /api/docs`."""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return func.HttpResponse(_page(version), headers=headers, mimetype="text/html", charset="utf-8")


@cache
def _page(version: str) -> str:
    from shared.entrypoints.openapi import document  # noqa: PLC0415 - its shapes are not needed to decide

    found = document(version)
    info = found["info"]
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<details id="{html.escape(name)}"><summary><code>{html.escape(name)}</code> '
        f"{html.escape(schema.get('description', ''))}</summary>{_json(schema)}</details>"
        for name, schema in sorted(found["components"]["schemas"].items())
    )
    title = html.escape(f"{info['title']} {info['version']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(info['description'])}</p>"
        f'<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<h2>Routes</h2>{operations}<h2>Shapes</h2>{schemas}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{status}</code></td><td>{html.escape(response['description'])} {_shape(response)}</td></tr>"
        for status, response in sorted(operation["responses"].items())
    )
    parameters = "".join(
        f"<p><code>{html.escape(parameter['name'])}</code> ({parameter['in']}): "
        f"{html.escape(parameter['description'])}</p>"
        for parameter in operation.get("parameters", ())
    )
    body = f"<p>Body: {_shape(operation['requestBody'])}</p>" if "requestBody" in operation else ""
    key = "" if "security" in operation else " No key is needed."
    return (
        f'<details><summary><span class="method">{method.upper()}</span><code>/api{html.escape(path)}</code> '
        f"{html.escape(operation['summary'])}.{key}</summary>{parameters}{body}<table>{rows}</table></details>"
    )


def _shape(part: dict[str, Any]) -> str:
    """A link to the shape of a body or an answer."""
    for content in part.get("content", {}).values():
        name = html.escape(content["schema"].get("$ref", "").rpartition("/")[2])
        if name:
            return f'<a href="#{name}"><code>{name}</code></a>'
    return ""


def _json(schema: object) -> str:
    return f"<pre>{html.escape(json.dumps(schema, indent=2))}</pre>"
