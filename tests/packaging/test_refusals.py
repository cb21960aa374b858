"""Everything that is refused, by the name of its reason; nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.packaging.conftest import MINIMAL_APP, Tree, real_pins
from tests.packaging.test_native import elf
from twin.packaging import (
    ForbiddenContent,
    ForbiddenDistribution,
    ImportRefused,
    InvalidSource,
    Limits,
    MissingImport,
    Package,
    PackageError,
    TooLarge,
    WrongPlatform,
)
from twin.packaging.contents import refuse_distributions, refuse_shadows, secret_in
from twin.packaging.policy import APPS, SITE_PACKAGES

type Build = Callable[..., Package]
type Plant = Callable[[Tree], None]

APP = "functions/score/function_app.py"
FAKE_KEY = "A" * 86 + "=="


def appended(text: str) -> Plant:
    return lambda tree: tree.append(APP, text)


def written(path: str, content: str | bytes = "x") -> Plant:
    return lambda tree: tree.write(path, content)


def without(path: str) -> Plant:
    return lambda tree: (tree.root / path).unlink()


def unignored_settings(tree: Tree) -> None:
    tree.write("functions/score/local.settings.json", "{}")
    tree.write("functions/score/.funcignore", "")


def linked(tree: Tree) -> None:
    (tree.root / "functions/score/link.txt").symlink_to("host.json")


def stale_requirements(tree: Tree) -> None:
    tree.append("requirements/score.txt", "# newer\n")


CASES: list[tuple[str, Plant, type[PackageError], str]] = [
    ("settings", unignored_settings, ForbiddenContent, "local.settings.json must not be deployed"),
    ("pem", written("functions/score/server.pem"), ForbiddenContent, "server.pem"),
    ("key", written("shared/signing.key"), ForbiddenContent, "signing.key"),
    ("environment", written("shared/.env.production"), ForbiddenContent, "environment file"),
    ("ssh", written("functions/score/id_ed25519"), ForbiddenContent, "private key"),
    ("test-module", written("shared/domain/test_score.py"), ForbiddenContent, "a test"),
    ("test-folder", written("shared/tests/data.txt"), ForbiddenContent, "a test"),
    ("storage-key", appended(f"K = 'AccountKey={FAKE_KEY}'\n"), ForbiddenContent, "line 1[0-9]: looks like a storage"),
    ("hub-key", appended(f"K = 'SharedAccessKey={FAKE_KEY}'\n"), ForbiddenContent, "an Event Hubs key"),
    ("private-key", appended("K = '-----BEGIN " + "PRIVATE KEY-----'\n"), ForbiddenContent, "a private key"),
    ("url", appended("D = 'postgresql://me:" + "hunter22@db.example'\n"), ForbiddenContent, "a URL with a password"),
    ("native", written("functions/score/x.abi3.so", elf(machine=183)), WrongPlatform, "not built for x86_64"),
    ("link", linked, InvalidSource, "symbolic link"),
    ("no-host-json", without("functions/score/host.json"), InvalidSource, "host.json is missing"),
    ("no-typing", without("shared/py.typed"), InvalidSource, "py.typed is missing"),
    ("no-version", written("pyproject.toml", "[project]\n"), InvalidSource, "states no project version"),
    ("stale", stale_requirements, InvalidSource, "run make lock"),
    ("syntax", appended("def broken(:\n"), InvalidSource, "no valid Python: function_app.py"),
    ("import", appended("import pandas\n"), MissingImport, r"function_app.py, line \d+ needs pandas"),
    (
        "shared-import",
        written("shared/entrypoints/http_hello.py", "import numpy\n"),
        MissingImport,
        "http_hello.py, line 1 needs numpy",
    ),
    ("settings-at-import", appended("import os\nX = os.environ['HUB']\n"), ImportRefused, "raises KeyError: 'HUB'"),
    ("exit-at-import", appended("raise SystemExit(3)\n"), ImportRefused, "SystemExit"),
    ("two-apps", appended("other = func.FunctionApp()\n"), ImportRefused, "2 FunctionApp objects"),
    ("no-function", written(APP, MINIMAL_APP.split("@app.route")[0]), ImportRefused, "registers no function"),
    (
        "same-name",
        appended("\n@app.function_name('hello')\n@app.route('x')\ndef other(req): ...\n"),
        ImportRefused,
        "(?i)hello",
    ),
]


@pytest.mark.parametrize(("plant", "kind", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused(plant: Plant, kind: type[PackageError], message: str, tree: Tree, build_tree: Build) -> None:
    plant(tree)
    with pytest.raises(kind, match=message) as refusal:
        build_tree()
    assert refusal.value.reason == kind.__name__
    assert str(refusal.value).startswith("score: ") or kind is InvalidSource
    out = tree.root.parent / "out"
    assert not out.exists() or list(out.iterdir()) == []


def test_the_tree_of_these_tests_is_not_refused(tree: Tree, build_tree: Build) -> None:
    functions = build_tree().manifest.functions
    assert functions is not None
    assert [function.name for function in functions] == ["hello"]


@pytest.mark.parametrize(
    ("limits", "what"), [(Limits(zip_bytes=1000), "zip"), (Limits(unpacked_bytes=1000), "unpacked")]
)
def test_too_large(limits: Limits, what: str, build_tree: Build) -> None:
    with pytest.raises(TooLarge, match=f"score: {what} is .* MiB, the limit is 0.0 MiB"):
        build_tree(limits=limits)


def test_forbidden_distribution(tree: Tree, build_tree: Build) -> None:
    tree.pin(real_pins("azure-functions", "werkzeug", "markupsafe", "coverage"))
    with pytest.raises(ForbiddenDistribution, match="score: must not carry coverage"):
        build_tree()


@pytest.mark.parametrize("app", APPS)
def test_heavy_libraries_stay_out_of_what_decides(app: str) -> None:
    heavy = ["xgboost", "shap", "Pandas", "scikit_learn", "mlflow"]
    if app in ("score", "ingest"):
        with pytest.raises(ForbiddenDistribution, match="mlflow, pandas, scikit-learn, shap, xgboost"):
            refuse_distributions(app, [*heavy, "numpy"])
    else:
        refuse_distributions(app, heavy)
    with pytest.raises(ForbiddenDistribution, match="azure-functions-worker"):
        refuse_distributions(app, ["azure_functions.worker"])


@pytest.mark.parametrize("name", ["typing.py", "json/__init__.py", "shared/__init__.py", "function_app.py"])
def test_libraries_may_not_hide_modules(name: str) -> None:
    with pytest.raises(ForbiddenContent, match="hides the module"):
        refuse_shadows("score", [f"{SITE_PACKAGES}/{name}"], own=("shared", "function_app"))


@pytest.mark.parametrize(
    "text",
    [
        b"AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
        b"SharedAccessKey=SAS_KEY_VALUE;",
        b"postgresql://tollgate:tollgate-local@127.0.0.1/tollgate",
        b"postgresql://{user}:{password}@{host}/x",
        b"https://learn.microsoft.com/azure/a:b@c",
    ],
)
def test_documented_development_values_are_no_secrets(text: bytes) -> None:
    assert secret_in(text) is None
