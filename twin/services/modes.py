"""What kind of twin is up: remembered in the state folder, so that every later command speaks of the same one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mode:
    """How the twin runs the product.

    Attributes:
        packages: Apps run from deployment packages, with nothing else on their path.
        identity: No keys: managed identity, tokens and TLS everywhere.
        func: Apps run under Azure Functions Core Tools.
        keys: The apps' access keys are enforced, as in the cloud.
        docker: Storage, broker and database are the containers of docker-compose.azurite.yml.
        mlflow: An MLflow server runs as well, and the retrain app records in it.
    """

    packages: bool = False
    identity: bool = False
    func: bool = False
    docker: bool = False
    keys: bool = False
    mlflow: bool = False

    def problem(self) -> str:
        """Why the switches do not go together; empty if they do."""
        if self.identity and self.docker:
            return "--identity needs the twin's own services; leave --docker out"
        if self.identity and self.func:
            return "--identity was never run under Core Tools; leave --func out"
        if self.mlflow and self.identity:
            return "--mlflow reaches storage and database with keys; leave --identity out"
        if self.mlflow and self.docker:
            return "--docker has an MLflow of its own: docker compose up mlflow; leave --mlflow out"
        if self.keys and self.func:
            return "--keys needs the twin's own host; func start asks for no keys"
        if self.packages and self.func:
            return "--packages needs the twin's own host; leave --func out"
        return ""

    def switches(self) -> str:
        """The switches as they are typed."""
        return " ".join(f"--{name}" for name, on in asdict(self).items() if on)

    def save(self, home: Path) -> None:
        """Remember this mode."""
        home.mkdir(parents=True, exist_ok=True)
        (home / "mode.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, home: Path) -> Mode:
        """The mode of the last `up`; the plain one if there was none or it cannot be read."""
        try:
            return cls(**json.loads((home / "mode.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return cls()
